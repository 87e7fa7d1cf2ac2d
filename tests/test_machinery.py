"""The benchmark of the machinery compares like with like."""

import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.machinery import cost_of, in_turns, make_bare_project
from clha_core.errors import UserError


def test_a_bare_project_has_as_many_stages_in_a_row_and_all_have_run(tmp_path: Path) -> None:
    folder = make_bare_project(tmp_path / "bare", 2)
    assert set(yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]) == {"stage0", "stage1"}
    assert (folder / "out1").exists()


def test_what_a_command_computes_counts_also_in_its_children(tmp_path: Path) -> None:
    work = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    costs = in_turns({"busy": ([sys.executable, "-c", parent], tmp_path)}, rounds=1)
    assert costs["busy"].cpu > 0.5
    assert costs["busy"].wall > 0.5


def test_a_command_that_fails_has_no_cost(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="failed"):
        cost_of([sys.executable, "-c", "raise SystemExit(1)"], tmp_path)
