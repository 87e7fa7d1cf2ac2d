"""Runs that a person starts in Prefect's UI: a real server, a real browser, the real stages, in small."""

import os
import time
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
from project import Project, clone_with_cache
from servers import BUSY, MINUTE, RUN_MINUTES, Servers

from benchmarks.flow_runs import processes_of, until
from flows.gpu import GPU_LIMIT
from flows.pipeline import SUMMARY_KEY, VERSION_KEY
from flows.registry import CHAMPION_KEY, COMPARE_KEY, LIST_KEY
from flows.stage import STAGES

# A slow machine needs minutes for a run, and the first test makes two of them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CANCEL_SECONDS = 10.0
FORM_CHANGES: dict[str, Any] = {"train.method": "sft", "train.margin": 1.5}


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
    # Its list of deployments has more than one page.
    page.goto(f"{servers.url}/v2/deployments/deployment/{servers.ask('/deployments/name/clha/small')['id']}")
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


# Those that need `pipeline` come after: another process makes it meanwhile.
def test_a_run_shows_its_steps_and_ends_with_a_table(page: Page, servers: Servers, form_run: str) -> None:
    open_run(page, servers, form_run, "Task Runs")
    for name in (*STAGES, "register"):
        expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    open_run(page, servers, form_run, "Artifacts")
    page.get_by_role("link", name=SUMMARY_KEY).click()
    # The page of the key has what all runs left under it.
    page.get_by_role("link", name=servers.artifact(form_run, SUMMARY_KEY)["id"][:8]).click()
    expect(page.get_by_role("columnheader", name="Evaluation reward")).to_be_visible()


def test_a_run_leads_to_the_version_that_it_registered_and_back(servers: Servers, form_run: str) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{servers.project.root / 'mlflow.db'}")  # not all of a client asks its own
    number = servers.left(form_run, VERSION_KEY).partition(")")[0].rpartition("/")[2]
    assert f"{servers.mlflow_url}/#/models/clha-policy/versions/{number}" in servers.left(form_run, VERSION_KEY)
    version = MlflowClient().get_model_version("clha-policy", number)
    assert servers.project.run("git", "cat-file", "-t", version.tags["git.commit"]) == "commit\n"
    locked = servers.project.locked_stages(servers.experiment(form_run))
    assert version.tags["data/rescored"] == locked["rescore"]["outs"][0]["md5"]
    trained = version.tags["prefect.flow_run_url"].rpartition("/")[2]  # the same run, if it was the first
    (data,) = [dep for dep in locked["ingest"]["deps"] if dep["path"] == "clha_core/sample"]
    for run_id in (form_run, trained):
        assert f"data:{data['md5']}" in servers.ask(f"/flow_runs/{run_id}")["tags"]


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


@pytest.mark.long
def test_two_runs_at_once_do_not_meet(servers: Servers, pipeline: Project) -> None:
    """Both train the model that `make pipeline` trained, and each keeps its own evaluation."""
    runs = {seed: servers.start_run({"evaluate.seed": seed}) for seed in (101, 102)}
    for run_id in runs.values():
        servers.wait(run_id, "COMPLETED")
    for seed, run_id in runs.items():
        kept = servers.experiment(run_id)
        params = yaml.safe_load(servers.project.run("git", "show", f"{kept}:params.yaml"))
        assert params["evaluate"]["seed"] == seed
        assert servers.project.locked_stages(kept)["train"] == pipeline.locked_stages("main")["train"]


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


def test_cancelling_a_run_ends_it_with_all_that_it_started(page: Page, servers: Servers) -> None:
    run_id = servers.start_run({"sft.max_steps": 1_000_000, "sft.epochs": 1_000_000.0})
    tree = tree_of(servers, run_id, stage="sft")
    assert len(tree) >= 4, tree  # the flow, its guard, DVC, and the stage, which is a child of DVC
    page.goto(f"{servers.url}/v2/runs/flow-run/{run_id}")
    page.get_by_role("button", name="Open menu").click()
    page.get_by_role("menuitem", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel Flow Run").click()
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    _, alive = psutil.wait_procs(tree, timeout=CANCEL_SECONDS * busy)
    assert alive == []
    servers.wait(run_id, "CANCELLED")
    assert servers.project.run("git", "status", "--porcelain") == ""


@pytest.mark.long
def test_a_run_whose_process_is_killed_has_crashed_and_retry_goes_on_from_the_step(
    servers: Servers, form_run: str
) -> None:
    run_id = servers.start_run({**FORM_CHANGES, "evaluate.seed": 201})
    tree = tree_of(servers, run_id, stage="evaluate")
    tree[0].kill()
    servers.wait(run_id, "CRASHED")
    _, alive = psutil.wait_procs(tree, timeout=MINUTE)
    assert alive == []

    # The slot of the dead process is taken until its lease ends; a person may allow another one meanwhile.
    servers.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})
    deadline = time.monotonic() + RUN_MINUTES
    while "waiting for a slot" not in servers.log(run_id):
        assert time.monotonic() < deadline, servers.log(run_id)
        time.sleep(0.2)
    servers.ask(f"/v2/concurrency_limits/{GPU_LIMIT}", {"limit": 2}, method="PATCH")
    servers.wait(run_id, "COMPLETED")
    servers.ask(f"/v2/concurrency_limits/{GPU_LIMIT}", {"limit": 1}, method="PATCH")
    expected = {**dict.fromkeys(STAGES, "Cached"), "evaluate": "Completed", "register": "Completed"}
    while (states := servers.task_states(run_id)) != expected:  # the server writes them down a little later
        assert time.monotonic() < deadline, states
        time.sleep(0.5)


def tree_of(servers: Servers, run_id: str, stage: str) -> list[psutil.Process]:
    """The process of a flow run and all that it has started, the former first, as soon as the stage runs."""
    return until(lambda: processes_of(servers.project.root, run_id, stage), "the stage did not start")
