"""Prefect's server goes away while a flow run has a step at work, and comes back on the same database."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from toy_project import make_toy_project

from reliability.servers import Server, prefect_server

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).resolve().parents[1]
SECONDS_DOWN = 2
SLOW_STAGE = """
  slow:
    cmd: printf half > slow.txt; while [ ! -e go ]; do sleep 0.2; done; printf ' and half' >> slow.txt
    deps: [doubled.txt]
    outs: [slow.txt]
"""


def ask(server: Server, what: str) -> list[dict]:
    request = urllib.request.Request(f"{server.url}/api/{what}/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_run_ends_completed_although_the_server_was_restarted_in_its_middle(tmp_path: Path) -> None:
    toy = make_toy_project(tmp_path / "project", "train: {margin: 3.0}\n", SLOW_STAGE)
    (tmp_path / "prefect").mkdir()
    with prefect_server(tmp_path / "prefect") as server:
        environment = {**os.environ, "PREFECT_API_URL": f"{server.url}/api", "PYTHONPATH": str(ROOT)}
        environment |= {"PREFECT_HOME": str(tmp_path / "client"), "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1"}
        worker = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "flow_worker.py"), str(toy)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while not (toy / "slow.txt").exists():
            assert worker.poll() is None, worker.communicate()[0]
            time.sleep(0.05)
        server.kill()
        time.sleep(SECONDS_DOWN)
        server.start()
        (toy / "go").touch()
        said, _ = worker.communicate(timeout=300)

        assert "ended as COMPLETED" in said, said
        (run,) = ask(server, "flow_runs")
        assert run["state_type"] == "COMPLETED"
        assert {task["name"]: task["state_type"] for task in ask(server, "task_runs")}["slow"] == "COMPLETED"
    assert (toy / "slow.txt").read_text() == "half and half"
