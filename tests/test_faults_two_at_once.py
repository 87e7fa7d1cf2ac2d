"""Two `dvc repro` in one working tree: one runs, the other says so in a sentence, and the results are right."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_project import make_toy_project

SLOW_STAGE = """
  slow:
    cmd: printf half > slow.txt; sleep 3; printf ' and half' >> slow.txt
    deps: [doubled.txt]
    outs: [slow.txt]
"""


@pytest.mark.slow
def test_the_second_repro_says_that_the_first_is_at_work_and_the_results_are_right(tmp_path: Path) -> None:
    toy = make_toy_project(tmp_path / "project", "train: {margin: 3.0}\n", SLOW_STAGE)
    command = [sys.executable, "-m", "dvc", "repro", "slow"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    first = subprocess.Popen(command, cwd=toy, env=environment, stdout=subprocess.PIPE, text=True)
    while not (toy / "slow.txt").exists():
        assert first.poll() is None
        time.sleep(0.02)

    second = subprocess.run(command, cwd=toy, env=environment, capture_output=True, text=True, check=False)
    said = second.stdout + second.stderr
    assert second.returncode != 0
    assert "Traceback" not in said
    assert "is busy, it is being blocked by" in said
    assert str(first.pid) in said

    assert first.wait() == 0
    assert (toy / "slow.txt").read_text() == "half and half"
    again = subprocess.run(command, cwd=toy, env=environment, capture_output=True, text=True, check=True)
    assert "Data and pipelines are up to date." in again.stdout
