"""One step of the flow: DVC runs the stage, its output is heard, its error is the step's."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dvc.lock import make_lock
from toy_project import FAILING_STAGE, make_toy_project

from flows.stage import STAGES, StageFailed, cause_of, repro, unchanged_stages, would_run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_project(tmp_path_factory.mktemp("toy") / "project", "train: {margin: 3}\n", FAILING_STAGE)


def test_the_steps_of_the_flow_are_the_stages_of_dvc_yaml_in_an_order_that_works() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert set(STAGES) == set(stages)
    made: set[str] = set()
    outputs = {
        name: {path for kind in ("outs", "metrics") for path in stage.get(kind, [])} for name, stage in stages.items()
    }
    everything = set().union(*outputs.values())
    for name in STAGES:
        assert set(stages[name]["deps"]) & everything <= made, f"{name} comes too early"
        made |= outputs[name]


def test_a_stage_runs_once_and_is_cached_from_then_on(toy: Path) -> None:
    lines: list[str] = []
    assert repro("double", toy, os.environ, lines.append) is True
    assert "Running stage 'double':" in lines
    assert (toy / "doubled.txt").read_text(encoding="utf-8") == "6"
    assert repro("double", toy, os.environ, lines.append) is False


def test_outputs_that_are_gone_come_back_from_the_cache_without_a_run(toy: Path) -> None:
    repro("double", toy, os.environ, str)
    (toy / "doubled.txt").unlink()
    (toy / "dvc.lock").unlink()
    assert repro("double", toy, os.environ, str) is False
    assert (toy / "doubled.txt").read_text(encoding="utf-8") == "6"


def test_a_dry_look_tells_what_would_run_and_runs_nothing(toy: Path) -> None:
    repro("double", toy, os.environ, str)
    assert not would_run("double", toy, os.environ)
    (toy / "params.yaml").write_text("train: {margin: 5}\n", encoding="utf-8")
    assert would_run("double", toy, os.environ)
    assert (toy / "doubled.txt").read_text(encoding="utf-8") == "6"
    (toy / "params.yaml").write_text("train: {margin: 3}\n", encoding="utf-8")


def test_one_look_tells_what_is_unchanged_before_the_first_stage_that_would_run(tmp_path: Path) -> None:
    copies = "".join(
        f"\n  {name}:\n    cmd: cp {source} {name}.txt\n    deps: [{source}]\n    outs: [{name}.txt]\n"
        for name, source in (("kept", "double.py"), ("copied", "doubled.txt"))
    )
    project = make_toy_project(tmp_path / "project", "train: {margin: 3}\n", copies)
    assert unchanged_stages(project, os.environ) == set()
    for stage in ("kept", "double", "copied"):
        repro(stage, project, os.environ, str)
    assert unchanged_stages(project, os.environ) == {"kept", "double", "copied"}
    (project / "params.yaml").write_text("train: {margin: 4}\n", encoding="utf-8")
    # What `copied` depends on will be another file, although it is not yet.
    assert unchanged_stages(project, os.environ) <= {"kept"}


def test_a_busy_dvc_is_waited_for_with_a_message(tmp_path: Path) -> None:
    slow = "\n  slow:\n    cmd: while [ ! -e go ]; do sleep 0.1; done; touch done\n    outs: [done]\n"
    project = make_toy_project(tmp_path / "project", "train: {margin: 3}\n", slow)
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        if line.startswith("waiting: another DVC command is busy"):
            (project / "go").touch()

    first = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "slow"], cwd=project)
    while not any((project / ".dvc" / "tmp").glob("rwlock")) or "slow" not in (project / ".dvc/tmp/rwlock").read_text():
        time.sleep(0.1)
    assert repro("slow", project, os.environ, listen) is False
    assert first.wait() == 0
    assert sum("waiting: " in line for line in lines) == 1


def test_a_stage_that_speaks_of_a_lock_of_its_own_has_failed(tmp_path: Path) -> None:
    locked = "\n  locked:\n    cmd: 'echo Unable to acquire lock >&2; exit 1'\n    outs: [never]\n"
    project = make_toy_project(tmp_path / "project", "train: {margin: 3}\n", locked)
    with pytest.raises(StageFailed, match="Unable to acquire lock"):
        repro("locked", project, os.environ, str)


def test_a_look_that_fails_does_not_say_that_nothing_would_run(toy: Path) -> None:
    repro("double", toy, os.environ, str)
    temporary = toy / ".dvc" / "tmp"
    with make_lock(str(temporary / "lock"), tmp_dir=str(temporary)):
        assert would_run("double", toy, os.environ)


def test_the_error_of_a_failed_stage_is_the_stages_own(toy: Path) -> None:
    repro("double", toy, os.environ, str)
    with pytest.raises(StageFailed) as caught:
        repro("fail", toy, os.environ, str)
    assert str(caught.value) == "fail: the data are bad:\n  - row 3\nMend row 3."


def test_without_an_error_line_the_last_line_of_a_traceback_is_the_cause() -> None:
    output = [
        "Traceback (most recent call last):",
        "  ...",
        "ValueError: no rows",
        "ERROR: failed to reproduce 'x': ...",
    ]
    assert cause_of(output) == "ValueError: no rows"


def test_where_the_stage_never_started_the_cause_is_what_dvc_says() -> None:
    output = ["ERROR: output 'models/base' does not exist"]
    assert cause_of(output) == "output 'models/base' does not exist"


def test_a_lone_failure_of_dvc_is_not_lost() -> None:
    assert "failed to reproduce 'x'" in cause_of(["ERROR: failed to reproduce 'x': interrupted"])
