"""Several processes rescore like one, and no process that dies takes anything with it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
import tiny
from raters import Failing, Mortal, Slow, StandIn
from test_flow_guard import lives, until

from clha_core.data.tables import CANDIDATES_SCHEMA, write_table
from clha_core.errors import UserError
from clha_core.rescoring import shards
from clha_core.rescoring.shards import ShardStore
from clha_core.rescoring.streamed import Rate, score_missing, write_ranked
from clha_core.rescoring.workers import Load, rate_here, rate_in_processes

WORKER = Path(__file__).with_name("rescore_worker.py")
ROWS = [{name: row[name] for name in CANDIDATES_SCHEMA.names} for row in tiny.random_rows(60)]
IDS = [row["id"] for row in ROWS]
ROWS_PER_SHARD = 4


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", ROWS_PER_SHARD)
    write_table(pa.Table.from_pylist(ROWS, schema=CANDIDATES_SCHEMA), tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def processes(load: Load, workers: int) -> Rate:
    return lambda missing, count: rate_in_processes(load, missing, workers)


def rescored(table: Path, rate: Rate) -> bytes:
    store = ShardStore(table.with_name("shards"))
    store.clear()
    score_missing([table], store, "scorer", rate)
    write_ranked(table, store, "scorer", table.with_name("out.parquet"))
    return table.with_name("out.parquet").read_bytes()


@pytest.fixture
def expected(table: Path) -> bytes:
    return rescored(table, lambda missing, count: rate_here(StandIn(table.with_name("alone")), missing))


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_the_bytes_of_this_one(table: Path, expected: bytes, workers: int) -> None:
    rater = StandIn(table.with_name("log"))
    assert rescored(table, processes(rater, workers)) == expected
    assert sorted(id_ for shard in rater.shards_rated() for id_ in shard) == IDS


def test_the_shard_of_a_worker_that_is_killed_goes_to_another(table: Path, expected: bytes) -> None:
    rater = Mortal(table.with_name("log"), row=IDS[9], lives=2)
    assert rescored(table, processes(rater, 2)) == expected
    assert sum(IDS[9] in shard for shard in rater.shards_rated()) == 3


def test_rows_that_every_worker_dies_of_are_named(table: Path) -> None:
    rater = Mortal(table.with_name("log"), row=IDS[9], lives=99)
    with pytest.raises(UserError, match=rf"3 workers died of the rows {IDS[8]} to {IDS[11]}.*-9.*rescore.workers"):
        rescored(table, processes(rater, 2))


def test_an_error_in_a_worker_is_raised_here_with_its_traceback(table: Path) -> None:
    with pytest.raises(ZeroDivisionError) as error:
        rescored(table, processes(Failing(table.with_name("log"), row=IDS[30]), 2))
    assert "raters.py" in error.value.__notes__[0]


def start(table: Path, **settings: object) -> subprocess.Popen[bytes]:
    """A process that rescores `table` with two workers."""
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(table), str(ROWS_PER_SHARD), str(settings["seconds"])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_with_its_workers_and_resumed_it_ends_in_the_same_bytes(
    table: Path, expected: bytes, seed: int
) -> None:
    chance = random.Random(seed)
    kept, log = table.with_name("kept"), Slow(table.with_name("log"), seconds=0)
    files = set[tuple[str, int]]()
    for _ in range(3):
        parent = start(table, seconds=0.03)
        until(lambda before=files: len(stored(kept)) > len(before), seconds=120)
        time.sleep(chance.uniform(0, 0.05))  # in the middle of a shard, or of writing one
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert files <= stored(kept), "a shard was scored again"
        files = stored(kept)
    pids = {int(pid) for pid in log.log.with_suffix(".pids").read_text().split()}
    assert len(pids) >= 3
    until(lambda: not any(lives(pid) for pid in pids))

    again = StandIn(table.with_name("again"))
    score_missing([table], ShardStore(kept), "scorer", lambda missing, count: rate_here(again, missing))
    write_ranked(table, ShardStore(kept), "scorer", table.with_name("out.parquet"))
    assert table.with_name("out.parquet").read_bytes() == expected
    assert len(again.shards_rated()) == len(IDS) // ROWS_PER_SHARD - len(files) > 0


def stored(folder: Path) -> set[tuple[str, int]]:
    """Name and time of each finished shard."""
    return {(file.name, file.stat().st_mtime_ns) for file in folder.glob("*.json")}


def test_two_at_once_in_one_folder_take_turns(table: Path, expected: bytes) -> None:
    both = [start(table, seconds=0.01) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert table.with_name("worker.parquet").read_bytes() == expected
    rated = [id_ for shard in StandIn(table.with_name("log")).shards_rated() for id_ in shard]
    assert sorted(rated[: len(IDS)]) == sorted(rated[len(IDS) :]) == IDS, "they did not take turns"
