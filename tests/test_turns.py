"""Runs that record at once: they take turns at finished models, and none loses what it had to say."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Barrier

import mlflow
import pytest
from mlflow import MlflowClient

from clha_core.tracking.mlflow_tracker import MlflowTracker, connect, reopened_run
from clha_core.tracking.turns import FINISHED_MODELS, turn

TAKE_A_TURN = """
import sys
from pathlib import Path
from clha_core.tracking.turns import FINISHED_MODELS, turn
with turn(Path(sys.argv[1]), FINISHED_MODELS):
    print("has it", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_process(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Takes a turn at `root`, says so, and gives it back once it reads a line."""
    command = [sys.executable, "-c", TAKE_A_TURN, str(root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_who_comes_second_says_that_it_waits_and_goes_on_afterwards(tmp_path: Path) -> None:
    with another_process(tmp_path) as first:
        assert next_line(first) == "has it\n"
        with another_process(tmp_path) as second:
            assert next_line(second).startswith("waiting: another run is")
            first.communicate("give it back\n")
            assert next_line(second) == "has it\n"


def test_a_turn_may_be_taken_again_inside(tmp_path: Path) -> None:
    with turn(tmp_path, FINISHED_MODELS), turn(tmp_path, FINISHED_MODELS):
        pass
    with another_process(tmp_path) as other:
        assert next_line(other) == "has it\n"


def test_the_turn_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    with another_process(tmp_path) as killed:
        assert next_line(killed) == "has it\n"
        killed.kill()
        killed.wait()
        with another_process(tmp_path) as next_one:
            assert next_line(next_one) == "has it\n"


def test_a_workspace_takes_turns_with_the_checkout_that_it_belongs_to(tmp_path: Path) -> None:
    workspace = tmp_path / ".clha" / "workspaces" / "run"
    workspace.mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    with turn(workspace, FINISHED_MODELS), another_process(tmp_path) as other:
        assert next_line(other).startswith("waiting: another run is")


def at_once(action: Callable[[], object], threads: int = 4) -> None:
    start = Barrier(threads)

    def act(_: int) -> None:
        start.wait()
        action()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(act, range(threads)))


def test_runs_that_name_the_same_new_data_at_once_all_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = connect(tmp_path, "clha")

    def name_data(digest: str) -> None:
        with mlflow.start_run() as run:
            MlflowTracker(run).log_dataset("data/x", tmp_path / "data" / "x", digest, "training")

    for digest in map(str, range(8)):  # most rounds have a loser
        at_once(partial(name_data, digest))
    runs = client.search_runs([client.get_experiment_by_name("clha").experiment_id])
    assert len(runs) == 4 * 8
    assert all(len(run.inputs.dataset_inputs) == 1 for run in runs)


def test_first_runs_of_an_experiment_may_start_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server, where no lock of this machine keeps them apart."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server.db'}")
    connect(tmp_path, "first")
    for experiment in map(str, range(8)):
        at_once(partial(connect, tmp_path, experiment))


def test_first_processes_of_a_local_database_may_start_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib; from clha_core.tracking.mlflow_tracker import connect; connect(pathlib.Path(), 'clha')"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]


@pytest.mark.parametrize("left_behind", ["FINISHED", "RUNNING"])
def test_a_run_that_was_opened_again_is_finished_even_if_a_process_was_killed_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_behind: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = connect(tmp_path, "clha")
    with mlflow.start_run() as run:
        pass
    ended = client.get_run(run.info.run_id).info.end_time
    client.update_run(run.info.run_id, left_behind)
    with reopened_run(run.info.run_id):
        pass
    info = MlflowClient().get_run(run.info.run_id).info
    assert (info.status, info.end_time) == ("FINISHED", ended)
