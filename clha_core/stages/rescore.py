"""Stage `rescore`: the reward model rates every candidate; rows are ranked by reward."""

from functools import partial
from pathlib import Path

from clha_core import paths
from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.rescoring.noise.report import report_noise
from clha_core.rescoring.shards import scorer_digest, shard_store
from clha_core.rescoring.streamed import Rate, score_missing, write_ranked
from clha_core.rescoring.workers import RowRater, rate_here, rate_in_processes
from clha_core.scoring.rater import RaterSpec, rescoring_rater
from clha_core.stages.context import prepare_torch, write_metrics

SPLITS = ("train", "validation")


def run(params: Params, root: Path = Path()) -> None:
    """Write data/rescored, a report on the labels' noise, and its figures.

    Scores are kept in .clha/rescore until all of that is written. Then DVC has the results, and scores by themselves
    would only be a second copy.
    """
    spec = rescoring_rater((root / paths.REWARD_MODEL).absolute(), params.reward_model)
    scorer = scorer_digest(spec, params.runtime.threads)
    tables = {split: root / paths.CANDIDATES / f"{split}.parquet" for split in SPLITS}
    out = root / paths.RESCORED
    out.mkdir(parents=True, exist_ok=True)
    with shard_store(root / paths.SCRATCH / "rescore") as store:
        score_missing(list(tables.values()), store, scorer, rate_with(params, spec))
        for split, table in tables.items():
            write_ranked(table, store, scorer, out / f"{split}.parquet")
        sample = params.sample if params.data.source == "sample" else None
        noise = report_noise(out / "train.parquet", root / paths.RESCORE_REPORT, sample)
        write_metrics(noise, root / paths.RESCORE_METRICS)
        store.clear()


def rate_with(params: Params, spec: RaterSpec) -> Rate:
    """What rates shards, as `params.rescore` says."""
    import torch

    if params.rescore.executor == "ray":
        from clha_core.rescoring.ray_workers import rate_on_ray

        load = partial(_load_elsewhere, params, spec, spec.digest)
        return lambda shards, count: rate_on_ray(
            load, shards, min(params.rescore.workers, count), params.runtime.threads
        )
    load_here = partial(_load, params, spec)
    workers = params.rescore.workers or max(1, torch.accelerator.device_count())
    return lambda shards, count: (
        rate_in_processes(load_here, shards, min(workers, count))
        if min(workers, count) > 1
        else rate_here(load_here, shards)
    )


def _load(params: Params, spec: RaterSpec, worker: int) -> RowRater:
    """The model of a worker, on the accelerator that is its turn where there are several."""
    import torch

    prepare_torch(params, params.reward_model.seed)
    if accelerators := torch.accelerator.device_count():
        torch.accelerator.set_device_index(worker % accelerators)
    return spec.load()


def _load_elsewhere(params: Params, spec: RaterSpec, digest: str, worker: int) -> RowRater:
    """The same on a machine that may have other files.

    Raises:
        UserError: the model there is not the one that the run was started with.
    """
    if spec.digest != digest:
        raise UserError(
            f"{spec.folder} is missing on a machine of the Ray cluster, or holds another model there: mount the "
            "project's folder under the same path on all of them."
        )
    return _load(params, spec, worker)
