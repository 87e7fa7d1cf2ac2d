"""Stage `sft`: supervised fine-tuning on what people chose: the baseline, and where alignment may start."""

from pathlib import Path

from datasets import Dataset

from clha_core import paths
from clha_core.data.tables import labelled_pair, read_rows
from clha_core.models.loading import load_policy, load_tokenizer
from clha_core.params import Params
from clha_core.stages.context import prepare_torch
from clha_core.tracking.interface import NullTracker
from clha_core.training.align import TRAINED_DTYPE, align, run_folder, training_config


def labelled_rows(path: Path) -> Dataset:
    """Ingested rows in TRL's columns: the label alone, no rewards."""
    rows = []
    for row in read_rows(path):
        chosen, rejected = labelled_pair(row)
        rows.append({"id": row["id"], "prompt": row["prompt"], "chosen": chosen, "rejected": rejected})
    return Dataset.from_list(rows)


def run(params: Params, root: Path = Path()) -> None:
    """Write models/sft and its curves. Not a run in MLflow: it is a part of every aligned model's run."""
    prepare_torch(params, params.sft.seed)
    ingested = root / paths.INGESTED
    base = root / paths.BASE_MODEL
    checkpoints = run_folder(root / paths.SCRATCH, "sft", params, params.sft, base, ingested)
    config = training_config(params.sft, params.policy, checkpoints)
    align(
        load_policy(base, dtype=TRAINED_DTYPE, trust_remote_code=params.policy.trust_remote_code),
        load_tokenizer(base, trust_remote_code=params.policy.trust_remote_code),
        labelled_rows(ingested / "train.parquet"),
        labelled_rows(ingested / "validation.parquet"),
        config,
        NullTracker(),
        out=root / paths.SFT_MODEL,
        curves=root / paths.SFT_CURVES,
    )
