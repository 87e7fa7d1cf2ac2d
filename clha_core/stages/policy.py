"""Stage `policy`: the model to align, trained from nothing or pinned where it lives."""

from pathlib import Path

from clha_core import paths
from clha_core.data.tables import read_rows
from clha_core.models.loading import write_pointer
from clha_core.params import Params
from clha_core.stages.context import prepare_torch


def run(params: Params, root: Path = Path()) -> None:
    """Write models/base: a checkpoint for 'scratch', else a pointer."""
    out = root / paths.BASE_MODEL
    if params.policy.model != "scratch":
        write_pointer(params.policy.model, params.policy.revision, out)
        return
    from clha_core.models.scratch import train_policy, train_tokenizer

    prepare_torch(params, params.policy.scratch.seed)
    rows = read_rows(root / paths.INGESTED / "train.parquet")
    tokenizer = train_tokenizer(rows, params.policy.scratch.vocab_size)
    train_policy(rows, tokenizer, params.policy).save_pretrained(out)
    tokenizer.save_pretrained(out)
