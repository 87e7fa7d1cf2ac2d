"""Steps in work pools: two workers in clones of their own, which share a git remote, a DVC remote and MLflow."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import mlflow
import psutil
import pytest
from project import Project
from servers import RUN_MINUTES, Servers

from flows.stage import STAGES

# A slow machine needs minutes for a run.
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

BASE = {"train.method": "sft", "train.margin": 1.5}
# Other parameters for two steps, and with them for what depends on the model.
CHANGES = {**BASE, "validate.max_duplicate_share": 0.06, "train.margin": 2.25}
POOLS = "validate=data train=gpu evaluate=data"
RAN = {"validate", "train", "evaluate"}


@dataclass
class Team:
    """The servers, where runs are started, and the clone of each worker by the name of its pool."""

    servers: Servers
    clones: dict[str, Project]

    def pools_of_steps(self, run_id: str) -> dict[str, str]:
        """The pool in which each step ran that was sent to one."""
        name = self.servers.ask(f"/flow_runs/{run_id}")["name"]
        found = self.servers.ask("/flow_runs/filter", {"flow_runs": {"tags": {"all_": ["step"]}}})
        mine = [step for step in found if step["name"].startswith(f"{name}-{run_id[:8]}-")]
        return {step["parameters"]["stage"]: step["work_pool_name"] for step in mine}


@pytest.fixture(scope="module")
def team(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    home = servers.project
    home.run("git", "clone", "--quiet", "--bare", ".", str(folder / "origin.git"))
    home.run("git", "remote", "add", "origin", str(folder / "origin.git"))
    home.dvc("remote", "add", "--local", "--default", "store", str(folder / "store"))
    environment = {"PREFECT_API_URL": f"{servers.url}/api", "MLFLOW_TRACKING_URI": servers.mlflow_url}
    clones = {}
    with ExitStack() as workers:
        for pool in ("data", "gpu"):
            home.run("git", "clone", "--quiet", str(folder / "origin.git"), str(folder / pool))
            clones[pool] = Project(folder / pool)
            clones[pool].dvc("remote", "add", "--local", "--default", "store", str(folder / "store"))
            command = [sys.executable, "-m", "flows.worker", "--pool", pool]
            workers.enter_context(clones[pool].started(*command, **environment))
        deadline = time.monotonic() + RUN_MINUTES
        while {"data", "gpu"} - {pool["name"] for pool in servers.ask("/work_pools/filter", {}) if is_ready(pool)}:
            assert time.monotonic() < deadline, "the workers did not come"
            time.sleep(0.5)
        yield Team(servers, clones)


def is_ready(pool: dict[str, object]) -> bool:
    return pool["status"] == "READY"


@pytest.fixture(scope="module")
def base_run(servers: Servers) -> str:
    """The id of a run with BASE, all of it here."""
    run_id = servers.start_run(BASE)
    servers.wait(run_id, "COMPLETED")
    return run_id


@pytest.fixture(scope="module")
def spread_run(team: Team, base_run: str) -> str:
    """The id of a run whose changed steps went to the pools."""
    run_id = team.servers.start_run(CHANGES, pools=POOLS)
    team.servers.wait(run_id, "COMPLETED")
    return run_id


def test_steps_run_in_their_pools_and_the_rest_here(team: Team, spread_run: str) -> None:
    assert team.pools_of_steps(spread_run) == {"validate": "data", "train": "gpu", "evaluate": "data"}
    states = team.servers.task_states(spread_run)
    assert {stage for stage in STAGES if states[stage] == "Completed"} == RAN
    assert {stage for stage in STAGES if states[stage] == "Cached"} == set(STAGES) - RAN


def test_the_result_is_what_dvc_repro_makes_in_one_place(
    team: Team, base_run: str, spread_run: str, tmp_path: Path
) -> None:
    home = team.servers.project
    by_hand = Project(tmp_path / "by_hand")
    home.run("git", "clone", "--quiet", ".", str(by_hand.root))
    by_hand.dvc("config", "--local", "cache.dir", str(home.root / ".dvc" / "cache"))
    by_hand.run("git", "fetch", "--quiet", "origin", team.servers.experiment(base_run))
    by_hand.run("git", "checkout", "--quiet", "FETCH_HEAD", "--", "dvc.lock", "params.yaml")
    by_hand.dvc("checkout")
    by_hand.set_params(CHANGES)
    assert set(by_hand.stages_that_ran(by_hand.dvc("repro", "--no-run-cache"))) == RAN
    by_hand.commit("by hand")
    assert home.locked_stages(team.servers.experiment(spread_run)) == by_hand.locked_stages("HEAD")


def test_the_record_leads_to_the_run_that_sent_the_step_and_to_the_commit_of_the_project(
    team: Team, spread_run: str
) -> None:
    mlflow.set_tracking_uri(team.servers.mlflow_url)
    (run,) = mlflow.search_runs(
        experiment_names=["clha"], filter_string=f"tags.`prefect.flow_run_id` = '{spread_run}'", output_format="list"
    )
    assert run.data.tags["mlflow.source.git.commit"] == team.servers.project.run("git", "rev-parse", "HEAD").strip()
    assert run.data.metrics["evaluate/total/reward"] is not None


def test_nothing_of_a_run_stays_on_the_git_remote_or_with_the_workers(team: Team, spread_run: str) -> None:
    assert "refs/clha" not in team.servers.project.run("git", "ls-remote", "origin")
    for clone in team.clones.values():
        assert clone.run("git", "status", "--porcelain") == ""
        assert list((clone.root / ".clha" / "workspaces").glob("*")) == []


def test_cancelling_the_run_ends_the_step_on_the_other_machine(team: Team, spread_run: str) -> None:
    endless = {**CHANGES, "train.max_steps": 1_000_000, "train.epochs": 1_000_000.0}
    run_id = team.servers.start_run(endless, pools="train=gpu")
    deadline = time.monotonic() + RUN_MINUTES
    while not (stages := processes_in(team.clones["gpu"].root / ".clha")):
        assert time.monotonic() < deadline, team.servers.log(run_id)
        time.sleep(0.2)
    team.servers.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    team.servers.wait(run_id, "CANCELLED")
    psutil.wait_procs(stages, timeout=60)
    assert processes_in(team.clones["gpu"].root / ".clha") == []


def processes_in(folder: Path) -> list[psutil.Process]:
    return [found for found in psutil.process_iter(["cwd"]) if (found.info["cwd"] or "").startswith(str(folder))]
