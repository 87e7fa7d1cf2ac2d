"""Where each stage of dvc.yaml reads and writes, relative to the project's root.

dvc.yaml names the same paths (tests/test_dvc_yaml.py holds the two together).
"""

from pathlib import Path

PARAMS = Path("params.yaml")

INGESTED = Path("data/ingested")  # train.parquet, validation.parquet, test.parquet, quarantine.jsonl
INGEST_METRICS = Path("metrics/ingest.json")

DATA_DOCS = Path("reports/data_docs")
VALIDATE_METRICS = Path("metrics/validate.json")

BASE_MODEL = Path("models/base")
REWARD_MODEL = Path("models/reward")  # a checkpoint, a pointer, or folds.json and fold-0, fold-1, ...
EVAL_REWARD_MODEL = Path("models/eval_reward")
REWARD_MODEL_REPORT = Path("reports/reward_models")
REWARD_MODEL_METRICS = Path("metrics/reward_models.json")

CANDIDATES = Path("data/candidates")  # train.parquet, validation.parquet, origins.json, quarantine.jsonl
CANDIDATES_METRICS = Path("metrics/candidates.json")

RESCORED = Path("data/rescored")  # train.parquet, validation.parquet
RESCORE_REPORT = Path("reports/rescore")
RESCORE_METRICS = Path("metrics/rescore.json")

SFT_MODEL = Path("models/sft")
SFT_CURVES = Path("curves/sft.csv")

ALIGNED_MODEL = Path("models/aligned")
TRAIN_CURVES = Path("curves/train.csv")
TRAIN_METRICS = Path("metrics/train.json")

EVALUATION = Path("reports/evaluation")  # report.html, generations.parquet, protocol.json
EVALUATION_PROTOCOL = EVALUATION / "protocol.json"
GENERATIONS = EVALUATION / "generations.parquet"
EVALUATE_METRICS = Path("metrics/evaluate.json")  # by subset, with intervals
SUMMARY_METRICS = Path("metrics/summary.json")  # what `dvc metrics diff` and `dvc exp show` are to show

# Written outside of the stages: people and language models compare two systems' answers.
ASSESSMENT = Path("reports/assessment")
JUDGING = Path("reports/judging")

SPLITS = ("train", "validation", "test")
QUARANTINE = "quarantine.jsonl"

# Not tracked by DVC or git: checkpoints of a training that has not finished, workspaces of flow runs.
SCRATCH = Path(".clha")
# Generated responses, so that none is computed or paid for twice; flow runs share those of the checkout.
KEPT_CANDIDATES = SCRATCH / "candidates"
KEPT_ANSWERS = SCRATCH / "answers"  # to test prompts, of servers
