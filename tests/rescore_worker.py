"""A rescoring that a test starts and may kill: `rescore_worker.py TABLE ROWS_PER_SHARD SECONDS_PER_SHARD`."""

import sys
from pathlib import Path

from raters import Slow

from clha_core.rescoring import shards
from clha_core.rescoring.shards import shard_store
from clha_core.rescoring.workers import rate_in_processes


def main() -> None:
    """Rescore beside the table, with two workers, and keep nothing but the result."""
    from clha_core.rescoring.streamed import score_missing, write_ranked  # not in workers, which import this file too

    table = Path(sys.argv[1])
    shards.ROWS_PER_SHARD = int(sys.argv[2])
    rater = Slow(table.with_name("log"), seconds=float(sys.argv[3]))
    with shard_store(table.with_name("kept")) as store:
        score_missing([table], store, "scorer", lambda missing, count: rate_in_processes(rater, missing, 2))
        write_ranked(table, store, "scorer", table.with_name("worker.parquet"))
        store.clear()


if __name__ == "__main__":
    main()
