"""What `python -m flows.start` starts, and Prefect's API as a client without a browser asks it."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from project import SMALL, Project, copy_project

MINUTE = 60.0
RUN_MINUTES = 10 * MINUTE
BUSY = 503  # Prefect's answer while its SQLite database is locked: "try again", as its own clients do
LOCAL_PRESET, LOCAL_DATA = "mine", "mine"  # a preset that reads a folder of the checkout, and the folder
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Servers:
    """What `python -m flows.start` started in a copy of the project, and Prefect's API."""

    def __init__(self, project: Project, process: subprocess.Popen[str], url: str, mlflow_url: str) -> None:
        self.project = project
        self.process = process
        self.url = url
        self.mlflow_url = mlflow_url

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api{path}", data, headers, method=method)
        deadline = time.monotonic() + MINUTE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=MINUTE) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def start_run(self, changes: dict[str, Any], deployment: str = "small", **more: Any) -> str:
        """Start a run without the browser, with some parameters changed, and `more` beside them; gives its id."""
        found = self.ask(f"/deployments/name/clha/{deployment}")
        parameters = found["parameters"]
        for dotted, value in changes.items():
            section, key = dotted.split(".")
            parameters["params"][section][key] = value
        parameters |= more
        return self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"]

    def start(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Start a run of another flow than the pipeline; gives its id."""
        found = self.ask(f"/deployments/name/clha-{deployment}/{deployment}")
        return self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"]

    def wait(self, run_id: str, end: str) -> dict[str, Any]:
        """The state that the run ends in, of the type `end`; else the test fails with the run's log."""
        deadline = time.monotonic() + RUN_MINUTES
        while (state := self.ask(f"/flow_runs/{run_id}")["state"])["type"] not in ENDS:
            assert time.monotonic() < deadline, f"run {run_id} did not end: {state}\n{self.log(run_id)}"
            time.sleep(0.5)
        assert state["type"] == end, f"run {run_id}: {state}\n{self.log(run_id)}"
        return state

    def log(self, run_id: str) -> str:
        found = self.ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_DESC"})
        return "\n".join(line["message"] for line in reversed(found))

    def experiment(self, run_id: str) -> str:
        """The git reference of the DVC experiment that keeps what the run made."""
        names = self.project.dvc("exp", "list", "--name-only").split()
        (name,) = [name for name in names if name.endswith(run_id[:8])]
        references = self.project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        (reference,) = [reference for reference in references if reference.endswith(f"/{name}")]
        return reference

    def task_states(self, run_id: str) -> dict[str, str]:
        """By step, the state of its latest try: that of a process which was killed stays as it was."""
        tasks = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        tasks.sort(key=lambda task: task["created"])
        return {task["name"]: task["state"]["name"] for task in tasks}

    def artifact(self, run_id: str, key: str) -> dict[str, Any]:
        """What a run left under a key."""
        of_run = {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}
        (artifact,) = self.ask("/artifacts/filter", {"artifacts": of_run})
        return artifact

    def left(self, run_id: str, key: str) -> str:
        return self.artifact(run_id, key)["data"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started_servers(folder: Path) -> Iterator[Servers]:
    """The start command, in a copy of the project that has two more presets: `small`, and one with data of its own."""
    project = copy_project(folder / "project", SMALL)
    preset = "# Everything small.\ntrain: { method: clha }\n"
    (project.root / "presets" / "small.yaml").write_text(preset, encoding="utf-8")
    local = f"# Data of our own.\ndata: {{ source: local, path: {LOCAL_DATA} }}\n"
    (project.root / "presets" / f"{LOCAL_PRESET}.yaml").write_text(local, encoding="utf-8")
    project.commit("more presets")
    (project.root / ".git" / "info" / "exclude").write_text(f"/{LOCAL_DATA}\n", encoding="utf-8")
    port, mlflow_port = free_port(), free_port()
    command = [sys.executable, "-m", "flows.start", "--port", str(port), "--mlflow-port", str(mlflow_port)]
    log = project.root.parent / "start.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=project.root, env=project.environment(), stderr=stream, text=True)
    deadline = time.monotonic() + 3 * MINUTE
    while "Start runs" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)
    yield Servers(project, process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{mlflow_port}")
    process.send_signal(signal.SIGINT)
    assert process.wait(MINUTE) == 0
    left = [found for found in psutil.process_iter(["cwd"]) if found.info["cwd"] == str(project.root)]
    assert left == [], "Ctrl-C left processes behind"
