"""Stage `train`: the alignment, one MLflow run."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from datasets import Dataset

from clha_core import paths
from clha_core.data.tables import RESCORED_SCHEMA, read_table
from clha_core.digest import folder_digest
from clha_core.params import Params, flatten
from clha_core.stages.context import is_main_process, prepare_torch, write_metrics
from clha_core.tracking.interface import NullTracker
from clha_core.tracking.lineage import MODEL_DIGEST_TAG
from clha_core.tracking.mlflow_tracker import training_run
from clha_core.tracking.record import describe_training
from clha_core.training.align import align, run_folder, training_config
from clha_core.training.preference_data import labelled_dataset


def rows_of(path: Path, rewards: str) -> Dataset:
    """Rescored rows with their rewards, or (`rewards` is labels) their labelled pairs alone."""
    table = read_table(path, RESCORED_SCHEMA)
    return labelled_dataset(table.to_pylist()) if rewards == "labels" else Dataset(table)


def run(
    params: Params, root: Path = Path(), *, tags: Mapping[str, str] | None = None, reference_cache: Path | None = None
) -> None:
    """Write models/aligned, its curves and the figures of its best checkpoint; record all in MLflow.

    Args:
        params: all parameters.
        root: folder of the stages' inputs and outputs.
        tags: of the MLflow run, besides its own.
        reference_cache: where trainings from the same start share the reference's log-probs; None keeps them to itself.
    """
    prepare_torch(params, params.train.seed)
    rescored = root / paths.RESCORED
    start = root / {"base": paths.BASE_MODEL, "sft": paths.SFT_MODEL}[params.train.start_from]
    out = root / paths.ALIGNED_MODEL
    checkpoints = run_folder(root / paths.SCRATCH, "train", params, params.train, start, rescored)
    config = training_config(params.train, params.policy, checkpoints)
    if reference_cache is not None:
        config.reference_cache = str(reference_cache)
    train, validation = (
        rows_of(rescored / f"{split}.parquet", params.train.rewards) for split in ("train", "validation")
    )
    recorded = training_run(params, root, checkpoints) if is_main_process() else nullcontext(NullTracker())
    with recorded as tracker:
        describe_training(tracker, params, root)
        outcome = align(
            start,
            params.policy,
            train,
            validation,
            config,
            params.train,
            tracker,
            out=out,
            curves=root / paths.TRAIN_CURVES,
        )
        if not is_main_process():
            return
        metrics = {"best_step": outcome.best_step, "validation": outcome.metrics, "data": outcome.truncation}
        write_metrics(metrics, root / paths.TRAIN_METRICS)
        tracker.log_metrics({f"best/{name}": value for name, value in outcome.metrics.items()})
        tracker.log_metrics({f"data/{name}": float(count) for name, count in flatten(outcome.truncation)})
        tracker.set_tags({**(tags or {}), MODEL_DIGEST_TAG: folder_digest(out)})
