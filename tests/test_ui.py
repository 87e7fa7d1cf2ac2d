"""Runs that a person starts in Prefect's UI: a real server, a real browser, the real stages, in small."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from playwright.sync_api import Browser, Page, expect, sync_playwright
from project import SMALL, Project, copy_project

from flows.pipeline import SUMMARY_KEY
from flows.stage import STAGES

pytestmark = pytest.mark.slow

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MINUTE = 60.0
RUN_MINUTES = 6 * MINUTE


class Servers:
    """What `python -m flows.start` started in a copy of the project, and Prefect's API."""

    def __init__(self, project: Project, process: subprocess.Popen[str], url: str) -> None:
        self.project = project
        self.process = process
        self.url = url

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=MINUTE) as answer:
            return json.load(answer)

    def start_run(self, changes: dict[str, Any]) -> str:
        """Start a run without the browser, with some parameters changed; gives its id."""
        deployment = self.ask("/deployments/name/clha/small")
        parameters = deployment["parameters"]
        for dotted, value in changes.items():
            section, key = dotted.split(".")
            parameters["params"][section][key] = value
        return self.ask(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]

    def wait(self, run_id: str) -> dict[str, Any]:
        """The state that the run ends in."""
        deadline = time.monotonic() + RUN_MINUTES
        while time.monotonic() < deadline:
            state = self.ask(f"/flow_runs/{run_id}")["state"]
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return state
            time.sleep(0.5)
        raise AssertionError(f"run {run_id} did not end: {state}")

    def experiment(self, run_id: str) -> str:
        """The git revision of the DVC experiment that keeps what the run made."""
        names = self.project.dvc("exp", "list", "--name-only").split()
        name = next(name for name in names if name.endswith(run_id[:8]))
        references = self.project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        return next(reference for reference in references if reference.endswith(f"/{name}"))

    def task_states(self, run_id: str) -> dict[str, str]:
        tasks = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return {task["name"]: task["state"]["name"] for task in tasks}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The start command, in a copy of the project that has one more preset, `small`."""
    project = copy_project(tmp_path_factory.mktemp("ui") / "project", SMALL)
    preset = "# Everything small.\ntrain: { method: clha }\n"
    (project.root / "presets" / "small.yaml").write_text(preset, encoding="utf-8")
    project.commit("a small preset")
    port = free_port()
    command = [sys.executable, "-m", "flows.start", "--port", str(port), "--mlflow-port", str(free_port())]
    log = project.root.parent / "start.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=project.root, env=project.environment(), stderr=stream, text=True)
    deadline = time.monotonic() + 3 * MINUTE
    while "Start runs" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)
    yield Servers(project, process, f"http://127.0.0.1:{port}")
    process.send_signal(signal.SIGINT)
    assert process.wait(MINUTE) == 0
    left = [found for found in psutil.process_iter(["cwd"]) if found.info["cwd"] == str(project.root)]
    assert left == [], "Ctrl-C left processes behind"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        executable = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(executable).exists():
            pytest.skip("no Chromium: install Debian's, or run `playwright install chromium`")
        launched = playwright.chromium.launch(executable_path=executable, args=CHROMIUM)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, servers: Servers) -> Iterator[Page]:
    """A page in which every request to another host than the server's is a failure of the test."""
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    page.set_default_timeout(MINUTE * 1000)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    yield page
    page.close()
    assert {url for url in asked if not url.startswith((servers.url, "data:", "blob:"))} == set()


def open_form(page: Page, servers: Servers) -> None:
    page.goto(f"{servers.url}/v2/deployments")
    page.get_by_role("link", name="small", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    expect(page.get_by_role("button", name="Submit")).to_be_visible()


def submit(page: Page) -> str:
    """Submit the form; gives the id of the run that it starts."""
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("button", name="View run").click()
    page.wait_for_url("**/runs/flow-run/**")
    return page.url.rsplit("/flow-run/", 1)[1].split("?")[0]


def open_run(page: Page, servers: Servers, run_id: str, tab: str) -> None:
    page.goto(f"{servers.url}/v2/runs/flow-run/{run_id}")
    page.get_by_role("tab", name=tab).click()


def test_a_run_from_the_form_makes_what_dvc_repro_makes_with_the_same_parameters(
    page: Page, servers: Servers, tmp_path: Path
) -> None:
    by_hand = copy_project(tmp_path / "by_hand", {**SMALL, "train.method": "sft", "train.margin": 1.5})
    reproducing = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=by_hand.root, env=by_hand.environment()
    )
    open_form(page, servers)
    page.get_by_label("Margin", exact=True).fill("1.5")
    page.get_by_role("button", name="Select Method").click()
    page.get_by_role("option", name="sft", exact=True).click()
    page.screenshot(path=tmp_path / "form.png")
    run_id = submit(page)

    expect(page.get_by_text("Completed", exact=True).first).to_be_visible(timeout=RUN_MINUTES * 1000)
    page.screenshot(path=tmp_path / "run.png")
    open_run(page, servers, run_id, "Task Runs")
    for name in (*STAGES, "register"):
        expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    page.screenshot(path=tmp_path / "tasks.png")
    open_run(page, servers, run_id, "Artifacts")
    page.get_by_role("link", name=SUMMARY_KEY).click()
    expect(page.get_by_role("columnheader", name="Evaluation reward")).to_be_visible()
    page.screenshot(path=tmp_path / "summary.png")

    name = servers.experiment(run_id)
    made = yaml.safe_load(servers.project.run("git", "show", f"{name}:dvc.lock"))["stages"]
    assert reproducing.wait(RUN_MINUTES) == 0
    expected = yaml.safe_load((by_hand.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert made == expected
    assert servers.project.run("git", "status", "--porcelain") == "", "a run changed the user's checkout"


def test_the_same_run_again_says_that_nothing_new_was_computed(page: Page, servers: Servers) -> None:
    changes = {"train.method": "sft", "train.margin": 1.5}
    servers.wait(servers.start_run(changes))
    run_id = servers.start_run(changes)
    assert "all steps cached; results come from MLflow: http://" in servers.wait(run_id)["message"]
    assert servers.task_states(run_id) == {**dict.fromkeys(STAGES, "Cached"), "register": "Completed"}
    open_run(page, servers, run_id, "Details")
    expect(page.get_by_text("all steps cached; results come from MLflow").first).to_be_visible()


def test_a_failed_step_shows_its_cause(page: Page, servers: Servers, tmp_path: Path) -> None:
    open_form(page, servers)
    page.get_by_label("Min Rows", exact=True).fill("100000")
    run_id = submit(page)
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible(timeout=RUN_MINUTES * 1000)
    open_run(page, servers, run_id, "Details")
    expect(page.get_by_text("Every split has at least validate.min_rows rows").first).to_be_visible()
    page.screenshot(path=tmp_path / "failed.png")
    assert servers.task_states(run_id)["validate"] == "Failed"
    assert "policy" not in servers.task_states(run_id)


def test_two_runs_at_once_do_not_meet(servers: Servers) -> None:
    runs = [servers.start_run({"evaluate.seed": seed}) for seed in (101, 102)]
    assert [servers.wait(run_id)["type"] for run_id in runs] == ["COMPLETED", "COMPLETED"]
    for run_id, seed in zip(runs, (101, 102), strict=True):
        params = servers.project.run("git", "show", f"{servers.experiment(run_id)}:params.yaml")
        assert yaml.safe_load(params)["evaluate"]["seed"] == seed


def test_cancelling_a_run_ends_its_stage(servers: Servers) -> None:
    run_id = servers.start_run({"sft.max_steps": 1_000_000, "sft.epochs": 1_000_000.0})
    deadline = time.monotonic() + RUN_MINUTES
    while not stages_of(servers, run_id):
        assert time.monotonic() < deadline, servers.task_states(run_id)
        time.sleep(0.2)
    servers.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert servers.wait(run_id)["type"] == "CANCELLED"
    assert stages_of(servers, run_id) == []


def stages_of(servers: Servers, run_id: str) -> list[list[str]]:
    """Commands of `sft` that run in the workspace of a run."""
    workspaces = str(servers.project.root / ".clha" / "workspaces")
    found = [process.info for process in psutil.process_iter(["cwd", "cmdline"])]
    return [
        info["cmdline"]
        for info in found
        if (info["cwd"] or "").startswith(workspaces)
        and info["cwd"].endswith(run_id[:8])
        and info["cmdline"][-2:] == ["clha_core", "sft"]
    ]
