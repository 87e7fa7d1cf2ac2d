"""Whether data are new is DVC's to say, and what the last run read."""

import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from toy_project import commit, make_toy_project, run

from flows.new_data import data_hash, data_that_ran, last_data, new_data_deployments
from flows.serve import NIGHTLY, deployments, preset_parameters

ROOT = Path(__file__).resolve().parents[1]
INGEST = "\n  ingest:\n    cmd: cp -r mine out\n    deps: [mine]\n    outs: [out]\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("path: clha_core/sample", "path: mine")
    home = make_toy_project(tmp_path_factory.mktemp("new_data") / "project", text, INGEST)
    (home / "mine").mkdir()
    (home / "mine" / "train.jsonl").write_text("{}", encoding="utf-8")
    return home


def dvc(home: Path, *arguments: str) -> None:
    run(home, sys.executable, "-m", "dvc", *arguments)


def test_the_hash_is_the_one_that_dvc_writes_into_its_lock(home: Path) -> None:
    before = data_hash("mine", home)
    dvc(home, "repro", "ingest")
    assert data_that_ran(home) == before
    (home / "mine" / "more.jsonl").write_text("{}", encoding="utf-8")
    assert data_hash("mine", home) not in (None, before)


def test_where_there_are_no_data_there_is_no_hash(home: Path) -> None:
    assert data_hash("nothing/here", home) is None


def test_data_that_dvc_tracks_count_as_the_commit_has_them(home: Path) -> None:
    (home / "tracked").mkdir()
    (home / "tracked" / "train.jsonl").write_text("{}", encoding="utf-8")
    dvc(home, "add", "--quiet", "tracked")
    commit(home)
    recorded = yaml.safe_load((home / "tracked.dvc").read_text(encoding="utf-8"))["outs"][0]["md5"]
    (home / "tracked" / "train.jsonl").write_text("{} {}", encoding="utf-8")
    assert data_hash("tracked", home) == recorded


def past(*tags: str) -> FlowRun:
    return FlowRun(flow_id=uuid4(), tags=["clha", *tags])


@pytest.mark.parametrize(
    ("runs", "data"),
    [([], None), ([past()], None), ([past(), past("data:b.dir"), past("data:a.dir")], "b.dir")],
)
def test_the_last_data_are_those_of_the_newest_run_that_read_any(runs: list[FlowRun], data: str | None) -> None:
    assert last_data(runs) == data


def test_presets_with_local_data_have_a_trigger_and_all_have_a_schedule_that_is_off() -> None:
    local: dict[str, Any] = {name: preset_parameters(name) for name in ("local", "sample")}
    (watch,) = new_data_deployments(local)
    assert watch.name == "local"
    assert [trigger.expect for trigger in watch.triggers] == [{"clha.data.arrived"}]
    schedules = [one for made in (watch, *deployments()) for one in made.schedules or []]
    assert len(schedules) == 1 + len(deployments())
    assert not any(one.active for one in schedules)
    assert NIGHTLY.cron == "0 2 * * *"
