"""Stage `sft`: supervised fine-tuning on what people chose: the baseline, and where alignment may start."""

from pathlib import Path

from clha_core import paths
from clha_core.data.tables import read_rows
from clha_core.params import Params
from clha_core.stages.context import prepare_torch
from clha_core.tracking.interface import NullTracker
from clha_core.training.align import align, run_folder, training_config
from clha_core.training.preference_data import labelled_dataset


def run(params: Params, root: Path = Path()) -> None:
    """Write models/sft and its curves. Not a run in MLflow: it is a part of every aligned model's run."""
    prepare_torch(params, params.sft.seed)
    ingested = root / paths.INGESTED
    base = root / paths.BASE_MODEL
    checkpoints = run_folder(root / paths.SCRATCH, "sft", params, params.sft, base, ingested)
    align(
        base,
        params.policy,
        labelled_dataset(read_rows(ingested / "train.parquet")),
        labelled_dataset(read_rows(ingested / "validation.parquet")),
        training_config(params.sft, params.policy, checkpoints),
        params.sft,
        NullTracker(),
        out=root / paths.SFT_MODEL,
        curves=root / paths.SFT_CURVES,
    )
