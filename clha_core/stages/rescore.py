"""Stage `rescore`: the reward model rates every candidate; rows are ranked by reward."""

from pathlib import Path

from clha_core import paths
from clha_core.data.tables import read_rows, write_table
from clha_core.models.loading import load_reward_model, load_tokenizer
from clha_core.params import Params
from clha_core.rescoring.report import rescore_summary, write_rescore_report
from clha_core.rescoring.rescore import rank_candidates, rate_candidates
from clha_core.stages.context import prepare_torch, write_metrics


def run(params: Params, root: Path = Path()) -> None:
    """Write data/rescored, a report on the labels' noise, and its figures."""
    reward = params.reward_model
    prepare_torch(params, reward.seed)
    folder = root / paths.REWARD_MODEL
    model = load_reward_model(folder, dtype=reward.dtype, trust_remote_code=reward.trust_remote_code)
    tokenizer = load_tokenizer(folder, trust_remote_code=reward.trust_remote_code)
    out = root / paths.RESCORED
    out.mkdir(parents=True, exist_ok=True)
    tables = {}
    for split in ("train", "validation"):
        rows = read_rows(root / paths.INGESTED / f"{split}.parquet")
        rewards = rate_candidates(
            rows,
            model,
            tokenizer,
            text_format=reward.text_format,
            max_length=reward.max_length,
            batch_size=reward.batch_size,
            description=f"rescore {split}",
        )
        tables[split] = rank_candidates(rows, rewards)
        write_table(tables[split], out / f"{split}.parquet")
    train = tables["train"].to_pandas()
    write_metrics(rescore_summary(train), root / paths.RESCORE_METRICS)
    write_rescore_report(train, root / paths.RESCORE_REPORT)
