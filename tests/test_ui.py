"""Runs that a person starts in Prefect's UI: a real server, a real browser, the real stages, in small."""

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

import mlflow
import psutil
import pytest
import yaml
from browser import chromium
from listening import beyond_loopback
from mlflow import MlflowClient
from playwright.sync_api import Browser, Page, expect
from project import SMALL, Project, clone_with_cache, copy_project

from flows.pipeline import SUMMARY_KEY
from flows.registry import CHAMPION_KEY, COMPARE_KEY, LIST_KEY
from flows.stage import STAGES

# A slow machine needs minutes for a run, and the first test makes two of them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MINUTE = 60.0
RUN_MINUTES = 10 * MINUTE
BUSY = 503  # Prefect's answer while its SQLite database is locked: "try again", as its own clients do
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
FORM_CHANGES: dict[str, Any] = {"train.method": "sft", "train.margin": 1.5}


class Servers:
    """What `python -m flows.start` started in a copy of the project, and Prefect's API."""

    def __init__(self, project: Project, process: subprocess.Popen[str], url: str) -> None:
        self.project = project
        self.process = process
        self.url = url

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api{path}", data, {"Content-Type": "application/json"})
        deadline = time.monotonic() + MINUTE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=MINUTE) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def start_run(self, changes: dict[str, Any]) -> str:
        """Start a run without the browser, with some parameters changed; gives its id."""
        deployment = self.ask("/deployments/name/clha/small")
        parameters = deployment["parameters"]
        for dotted, value in changes.items():
            section, key = dotted.split(".")
            parameters["params"][section][key] = value
        return self.ask(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]

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
        tasks = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
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
    expect.set_options(timeout=MINUTE * 1000)
    with chromium() as launched:
        yield launched


@contextmanager
def watched_page(browser: Browser, servers: Servers) -> Iterator[Page]:
    """A page in which every request to another host than the server's is a failure of the test."""
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    page.set_default_timeout(MINUTE * 1000)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    yield page
    page.close()
    assert {url for url in asked if not url.startswith((servers.url, "data:", "blob:"))} == set()


@pytest.fixture
def page(browser: Browser, servers: Servers) -> Iterator[Page]:
    with watched_page(browser, servers) as page:
        yield page


@pytest.fixture(scope="module")
def form_run(browser: Browser, servers: Servers) -> str:
    """The id of a run that was started from the form, with FORM_CHANGES, and has completed."""
    with watched_page(browser, servers) as page:
        open_form(page, servers)
        page.get_by_label("Margin", exact=True).fill(str(FORM_CHANGES["train.margin"]))
        page.get_by_role("button", name="Select Method").click()
        page.get_by_role("option", name=FORM_CHANGES["train.method"], exact=True).click()
        run_id = submit(page)
        servers.wait(run_id, "COMPLETED")
        expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    return run_id


def open_form(page: Page, servers: Servers) -> None:
    page.goto(f"{servers.url}/v2/deployments")
    page.get_by_role("link", name="small", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    expect(page.get_by_role("button", name="Submit")).to_be_visible()


def submit(page: Page) -> str:
    """Submit the form; gives the id of the run that it starts."""
    while True:
        with page.expect_response("**/create_flow_run") as answer:
            page.get_by_role("button", name="Submit").click()
        if answer.value.status != BUSY:
            break
    page.get_by_role("button", name="View run").click()
    page.wait_for_url("**/runs/flow-run/**")
    return page.url.rsplit("/flow-run/", 1)[1].split("?")[0]


def open_run(page: Page, servers: Servers, run_id: str, tab: str) -> None:
    page.goto(f"{servers.url}/v2/runs/flow-run/{run_id}")
    page.get_by_role("tab", name=tab).click()


def test_everything_that_was_started_is_reached_from_this_machine_alone(servers: Servers) -> None:
    within, beyond = beyond_loopback(servers.process.pid)
    assert len(within) >= 2  # Prefect, MLflow
    assert beyond == []


def test_a_run_from_the_form_makes_what_dvc_repro_makes_with_the_same_parameters(
    form_run: str, servers: Servers, pipeline: Project, tmp_path: Path
) -> None:
    by_hand = clone_with_cache(pipeline, tmp_path / "by_hand")
    by_hand.set_params(FORM_CHANGES)
    by_hand.dvc("repro")
    by_hand.commit("by hand")
    # The flow has another cache: it computed all of it.
    assert servers.project.locked_stages(servers.experiment(form_run)) == by_hand.locked_stages("HEAD")
    assert servers.project.run("git", "status", "--porcelain") == "", "a run changed the user's checkout"


def test_a_run_shows_its_steps_and_ends_with_a_table(page: Page, servers: Servers, form_run: str) -> None:
    open_run(page, servers, form_run, "Task Runs")
    for name in (*STAGES, "register"):
        expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    open_run(page, servers, form_run, "Artifacts")
    page.get_by_role("link", name=SUMMARY_KEY).click()
    # The page of the key has what all runs left under it.
    page.get_by_role("link", name=servers.artifact(form_run, SUMMARY_KEY)["id"][:8]).click()
    expect(page.get_by_role("columnheader", name="Evaluation reward")).to_be_visible()


def test_the_same_run_again_says_that_nothing_new_was_computed(page: Page, servers: Servers, form_run: str) -> None:
    run_id = servers.start_run(FORM_CHANGES)
    assert "all steps cached; results come from MLflow: http://" in servers.wait(run_id, "COMPLETED")["message"]
    assert servers.task_states(run_id) == {**dict.fromkeys(STAGES, "Cached"), "register": "Completed"}
    open_run(page, servers, run_id, "Details")
    expect(page.get_by_text("all steps cached; results come from MLflow").first).to_be_visible()


def test_a_failed_step_shows_its_cause(page: Page, servers: Servers) -> None:
    open_form(page, servers)
    page.get_by_label("Min Rows", exact=True).fill("100000")
    run_id = submit(page)
    servers.wait(run_id, "FAILED")
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    open_run(page, servers, run_id, "Details")
    expect(page.get_by_text("Every split has at least validate.min_rows rows").first).to_be_visible()
    assert servers.task_states(run_id)["validate"] == "Failed"
    assert "policy" not in servers.task_states(run_id)


def test_two_runs_at_once_do_not_meet(servers: Servers, pipeline: Project) -> None:
    """Both train the model that `make pipeline` trained, and each keeps its own evaluation."""
    runs = {seed: servers.start_run({"evaluate.seed": seed}) for seed in (101, 102)}
    for run_id in runs.values():
        servers.wait(run_id, "COMPLETED")
    for seed, run_id in runs.items():
        kept = servers.experiment(run_id)
        params = yaml.safe_load(servers.project.run("git", "show", f"{kept}:params.yaml"))
        assert params["evaluate"]["seed"] == seed
        assert servers.project.locked_stages(kept)["train"] == pipeline.locked_stages("HEAD")["train"]


def test_the_registry_is_operated_from_prefect(servers: Servers, form_run: str) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{servers.project.root / 'mlflow.db'}")  # not all of a client asks its own
    client = MlflowClient()
    first = client.search_model_versions("name = 'clha-policy'")[0]
    second = client.create_model_version("clha-policy", first.source, first.run_id)
    client.set_registered_model_alias("clha-policy", "champion", first.version)

    promoted = servers.start("registry-promote", {"version": str(second.version), "why": "better in the pilot"})
    compared = servers.start("compare", {"a": f"{first.version}", "b": f"{first.version}:base"})
    for run_id in (promoted, compared):
        servers.wait(run_id, "COMPLETED")
    assert str(client.get_model_version_by_alias("clha-policy", "champion").version) == str(second.version)
    tags = client.get_model_version("clha-policy", second.version).tags
    assert tags["promoted.why"] == "better in the pilot"
    assert promoted in tags["promoted.flow_run_url"]
    assert "| All subsets (20) | A | B | A - B |" in servers.left(compared, COMPARE_KEY)

    back = servers.start("registry-rollback", {"why": "complaints"})
    listed = servers.start("registry-list", {})
    for run_id in (back, listed):
        servers.wait(run_id, "COMPLETED")
    assert f"version {first.version} is champion now" in servers.left(back, CHAMPION_KEY)
    assert "better in the pilot" in servers.left(listed, LIST_KEY)


def test_cancelling_a_run_ends_its_stage(servers: Servers) -> None:
    run_id = servers.start_run({"sft.max_steps": 1_000_000, "sft.epochs": 1_000_000.0})
    deadline = time.monotonic() + RUN_MINUTES
    while not stages_of(servers, run_id):
        assert time.monotonic() < deadline, servers.task_states(run_id)
        time.sleep(0.2)
    servers.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    servers.wait(run_id, "CANCELLED")
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
