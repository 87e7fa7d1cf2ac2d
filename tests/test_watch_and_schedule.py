"""What starts runs without a person: new data, and the clock. Prefect itself, its automations and its command."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from servers import LOCAL_DATA, LOCAL_PRESET, RUN_MINUTES, Servers

from clha_core.params import Params
from clha_core.sample.dialogues import generate_rows
from flows.serve import deployments, switched_as_before

# A slow machine needs minutes for a run.
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]


def write_data(folder: Path, params: Params, rows: int) -> None:
    for split in ("train", "test"):
        some = list(generate_rows(params.sample, split))[:rows]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in some), encoding="utf-8")


def emit_arrived(servers: Servers) -> None:
    """As whatever delivers the data does."""
    emit = ["prefect", "event", "emit", "clha.data.arrived", "--resource-id", "data"]
    servers.project.run("env", f"PREFECT_API_URL={servers.url}/api", sys.executable, "-m", *emit)


def until_started(servers: Servers, deployment: str, count: int) -> list[str]:
    """Ids of the runs of a deployment, the oldest first, once there are so many."""
    found = servers.ask(f"/deployments/name/{deployment}")
    query = {"deployments": {"id": {"any_": [found["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    deadline = time.monotonic() + RUN_MINUTES
    while len(runs := servers.ask("/flow_runs/filter", query)) < count:
        assert time.monotonic() < deadline, f"{deployment} has run {len(runs)} times"
        time.sleep(0.5)
    return [run["id"] for run in runs]


def test_a_run_starts_when_data_have_changed_since_the_last_one(
    servers: Servers, make_params: Callable[..., Params]
) -> None:
    pipeline, watch = f"clha/{LOCAL_PRESET}", f"clha-new-data/{LOCAL_PRESET}"
    params = make_params({"sample.train_pairs": 100, "sample.test_pairs": 40})
    data = servers.project.root / LOCAL_DATA
    data.mkdir()
    write_data(data, params, 40)
    # Ingest is what matters here: the step after it ends the run.
    first = servers.start_run({"validate.min_rows": 100_000}, deployment=LOCAL_PRESET)
    servers.wait(first, "FAILED")

    emit_arrived(servers)
    (unchanged,) = until_started(servers, watch, 1)
    assert servers.wait(unchanged, "COMPLETED")["message"] == f"{LOCAL_DATA} is as in the last run"
    assert until_started(servers, pipeline, 1) == [first]

    write_data(data, params, 41)
    emit_arrived(servers)
    _, second = until_started(servers, pipeline, 2)
    servers.ask(f"/flow_runs/{second}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    servers.wait(second, "CANCELLED")
    was, now = (
        [tag for tag in servers.ask(f"/flow_runs/{run_id}")["tags"] if tag.startswith("data:")]
        for run_id in (first, second)
    )
    assert len(was) == len(now) == 1
    assert was != now


def test_a_schedule_stays_as_it_was_switched_when_the_flows_are_served_again(servers: Servers) -> None:
    before = servers.ask("/deployments/name/clha/small")
    (nightly,) = before["schedules"]
    assert not nightly["active"]
    with temporary_settings({PREFECT_API_URL: f"{servers.url}/api"}):
        servers.ask(f"/deployments/{before['id']}/schedules/{nightly['id']}", {"active": True}, method="PATCH")
        (served,) = [made for made in switched_as_before(deployments(servers.project.root)) if made.name == "small"]
        served.apply()
    after = servers.ask("/deployments/name/clha/small")
    assert [(one["slug"], one["active"]) for one in after["schedules"]] == [("nightly", True)]
    assert not after["paused"]
    servers.ask(f"/deployments/{before['id']}/schedules/{nightly['id']}", {"active": False}, method="PATCH")
