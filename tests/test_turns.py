"""Processes of one checkout take turns at finished models, and the record says so."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from clha_core.tracking.mlflow_tracker import connect, reopened_run
from clha_core.tracking.turns import turn_at_finished_models

TAKE_A_TURN = """
import sys
from pathlib import Path
from clha_core.tracking.turns import turn_at_finished_models
with turn_at_finished_models(Path(sys.argv[1])):
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
    with turn_at_finished_models(tmp_path), turn_at_finished_models(tmp_path):
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
    with turn_at_finished_models(workspace), another_process(tmp_path) as other:
        assert next_line(other).startswith("waiting: another run is")


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
