"""Stage `evaluate`: base, SFT and the aligned model answer the test prompts; a second reward model judges."""

from pathlib import Path

import pandas as pd
from mlflow.exceptions import MlflowException

from clha_core import paths
from clha_core.data.tables import read_rows
from clha_core.evaluation.evaluate import Evaluator, choose_rows, protocol
from clha_core.evaluation.generation.served import require_served
from clha_core.evaluation.report import write_report
from clha_core.evaluation.summary import JUDGE, RATED_TRAINING_DATA, headline, summarise
from clha_core.params import Params
from clha_core.reward_models.identity import judge_rated_training_data
from clha_core.stages.context import prepare_torch, write_metrics
from clha_core.tracking.mlflow_tracker import connect, run_of_model
from clha_core.tracking.outbox import is_down
from clha_core.tracking.record import describe_evaluation

SYSTEMS = {"base": paths.BASE_MODEL, "sft": paths.SFT_MODEL, "aligned": paths.ALIGNED_MODEL}


def run(params: Params, root: Path = Path()) -> None:
    """Write the report, the generations and the figures; add them to the training's MLflow run."""
    marked = judge_rated_training_data(
        root / paths.REWARD_MODEL,
        root / paths.EVAL_REWARD_MODEL,
        allowed=params.reward_model.allow_same_eval_model,
    )
    if params.evaluate.generator == "endpoint":
        require_served([root / folder for folder in SYSTEMS.values()], root / paths.KEPT_ANSWERS)
    connect(root, params.registry.experiment)
    prepare_torch(params, params.evaluate.seed)
    rows = choose_rows(read_rows(root / paths.INGESTED / "test.parquet"), params.evaluate.prompts)
    evaluator = Evaluator(params, rows, root / paths.EVAL_REWARD_MODEL, root / paths.KEPT_ANSWERS)
    for system, folder in SYSTEMS.items():
        evaluator.add_system(system, root / folder)
    table = evaluator.table()
    metrics = summarise(table, list(SYSTEMS), params.evaluate) | {JUDGE: {RATED_TRAINING_DATA: marked}}
    out = root / paths.EVALUATION
    out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out / "generations.parquet", index=False)
    write_report(table, metrics, pd.read_csv(root / paths.TRAIN_CURVES), params, out)
    write_metrics(metrics, root / paths.EVALUATE_METRICS)
    write_metrics(headline(metrics), root / paths.SUMMARY_METRICS)
    write_metrics(protocol(params, table, root / paths.EVAL_REWARD_MODEL), root / paths.EVALUATION_PROTOCOL)

    try:
        with run_of_model(params, root) as tracker:
            describe_evaluation(tracker, root)
    except MlflowException as error:
        if not is_down(error):
            raise
        # The evaluation is whole; registering the model records it where that is missing.
        print("MLflow does not answer: the evaluation is not in its record yet. `clha register` adds it.", flush=True)
