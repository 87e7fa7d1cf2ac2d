"""Rescoring of tables of any length: a few shards are in memory, never a table."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
from tqdm.auto import tqdm

from clha_core.data.tables import RESCORED_SCHEMA, write_tables
from clha_core.errors import UserError
from clha_core.replacing import replacing
from clha_core.rescoring.rescore import rank_candidates
from clha_core.rescoring.shards import Rewards, Shard, ShardStore, read_shards

# Rates shards, of which the second argument says how many there are; gives their keys and rewards, in any order.
Rate = Callable[[Iterator[Shard], int], Generator[tuple[str, Rewards]]]


def score_missing(tables: Sequence[Path], store: ShardStore, scorer: str, rate: Rate) -> None:
    """Rate all shards of some tables of candidates that `store` does not have yet; each is stored when it is finished.

    Args:
        scorer: scorer_digest() of what `rate` rates with.
    """
    missing: set[str] = set()
    rows = scored = 0
    for shard in _shards(tables, scorer):
        rows += len(shard.rows)
        if store.read(shard.key) is None:
            missing.add(shard.key)
        else:
            scored += len(shard.rows)
    if not missing:
        return
    if scored:
        print(f"{scored} of {rows} rows are scored already", flush=True)
    todo = (shard for shard in _shards(tables, scorer) if shard.key in missing)
    with (
        tqdm(total=rows, initial=scored, desc="rescore", unit="row") as progress,
        closing(rate(todo, len(missing))) as rated,
    ):
        for key, rewards in rated:
            store.write(key, rewards)
            progress.update(len(rewards))


def write_ranked(table: Path, store: ShardStore, scorer: str, out: Path) -> None:
    """Write a table of candidates with its rewards, every row's candidates ranked; all its shards are in `store`.

    The bytes depend on rows and rewards alone. `out` is there in full or not at all.

    Raises:
        UserError: a shard is not in `store` any more.
    """
    with replacing(out) as partial:
        write_tables(_ranked(table, store, scorer), RESCORED_SCHEMA, partial)


def _shards(tables: Sequence[Path], scorer: str) -> Iterator[Shard]:
    for table in tables:
        yield from read_shards(table, scorer)


def _ranked(table: Path, store: ShardStore, scorer: str) -> Iterator[pa.Table]:
    for shard in read_shards(table, scorer):
        rewards = store.read(shard.key)
        if rewards is None:
            raise UserError("scores were removed while rescoring ran: run it again, it scores what is missing.")
        yield rank_candidates(shard.rows, rewards)
