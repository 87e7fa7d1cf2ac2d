"""Stage `rescore`: the reward model rates every candidate; rows are ranked by reward."""

from pathlib import Path

from clha_core import paths
from clha_core.data.tables import read_rows, write_table
from clha_core.params import Params
from clha_core.rescoring.checks import check_scores
from clha_core.rescoring.rater import rescoring_rater
from clha_core.rescoring.report import rescore_summary, write_rescore_report
from clha_core.rescoring.rescore import rank_candidates
from clha_core.stages.context import prepare_torch, write_metrics


def run(params: Params, root: Path = Path()) -> None:
    """Write data/rescored, a report on the labels' noise, and its figures."""
    reward = params.reward_model
    prepare_torch(params, reward.seed)
    rater = rescoring_rater(root / paths.REWARD_MODEL, reward).load()
    out = root / paths.RESCORED
    out.mkdir(parents=True, exist_ok=True)
    tables = {}
    for split in ("train", "validation"):
        rows = read_rows(root / paths.INGESTED / f"{split}.parquet")
        rewards = rater.rate(rows, f"rescore {split}")
        check_scores(rewards, [row["id"] for row in rows])
        tables[split] = rank_candidates(rows, rewards)
        write_table(tables[split], out / f"{split}.parquet")
    train = tables["train"].to_pandas()
    write_metrics(rescore_summary(train), root / paths.RESCORE_METRICS)
    write_rescore_report(train, root / paths.RESCORE_REPORT)
