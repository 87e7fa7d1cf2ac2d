"""Stage `rescore`: the reward model rates every candidate; rows are ranked by reward."""

from pathlib import Path

from clha_core import paths
from clha_core.data.tables import read_rows, write_table
from clha_core.params import Params
from clha_core.rescoring.noise.report import report_noise
from clha_core.rescoring.rater import rescoring_rater
from clha_core.rescoring.rescore import rank_candidates
from clha_core.stages.context import prepare_torch, write_metrics


def run(params: Params, root: Path = Path()) -> None:
    """Write data/rescored, a report on the labels' noise, and its figures."""
    reward = params.reward_model
    prepare_torch(params, reward.seed)
    rater = rescoring_rater(root / paths.REWARD_MODEL, reward).load()
    out = root / paths.RESCORED
    out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        rows = read_rows(root / paths.INGESTED / f"{split}.parquet")
        table = rank_candidates(rows, rater.rate(rows, f"rescore {split}"))
        write_table(table, out / f"{split}.parquet")
    sample = params.sample if params.data.source == "sample" else None
    noise = report_noise(out / "train.parquet", root / paths.RESCORE_REPORT, sample)
    write_metrics(noise, root / paths.RESCORE_METRICS)
