"""Flow runs by the clock, on servers of their own: what one costs beside its steps, how soon it is cancelled."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.states import Cancelling

from clha_core.errors import UserError
from flows.guard import guarded, stop
from flows.workspace import WORKSPACES

PRESET = "sample"
PORT, MLFLOW_PORT = 4290, 5090
PATIENCE_SECONDS = 1800.0
T = TypeVar("T")
ENDLESS = {"max_steps": 1_000_000, "epochs": 1_000_000.0}


@dataclass(frozen=True)
class RunCost:
    """Seconds of a flow run: from the request to its start, beside its steps, and of its steps."""

    waited: float
    beside: float
    steps: float


@contextmanager
def servers(root: Path) -> Iterator[SyncPrefectClient]:
    """What `make ui` starts, on other ports.

    Raises:
        UserError: it does not start.
    """
    command = [sys.executable, "-m", "flows.start", "--port", str(PORT), "--mlflow-port", str(MLFLOW_PORT)]
    process = subprocess.Popen(
        guarded(command), cwd=root, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stderr is not None
        said = b""
        while b"Start runs" not in said:
            line = process.stderr.readline()
            if not line:
                raise UserError(f"the servers did not start: {said.decode(errors='replace')}")
            said += line
        with SyncPrefectClient(f"http://127.0.0.1:{PORT}/api") as client:
            yield client
    finally:
        stop(process)


def unchanged_run(client: SyncPrefectClient) -> RunCost:
    """A run with the parameters of params.yaml.

    Raises:
        UserError: it failed.
    """
    run = client.create_flow_run_from_deployment(client.read_deployment_by_name(f"clha/{PRESET}").id)
    state = ended(client, run.id)
    if not state.is_completed():
        raise UserError(f"the flow run failed: {state.message}")
    tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    steps = sum((task.total_run_time for task in tasks), timedelta())
    run = client.read_flow_run(run.id)
    assert run.start_time is not None
    assert run.expected_start_time is not None
    seconds = (run.start_time - run.expected_start_time, run.total_run_time - steps, steps)
    return RunCost(*(each.total_seconds() for each in seconds))


def cancelled_run(client: SyncPrefectClient, root: Path) -> float:
    """Seconds from the request to cancel a run that trains, until nothing of it is alive and Prefect says so.

    Raises:
        UserError: it ended in another way.
    """
    deployment = client.read_deployment_by_name(f"clha/{PRESET}")
    params: dict[str, Any] = deployment.parameters["params"]
    parameters = {**deployment.parameters, "params": {**params, "sft": {**params["sft"], **ENDLESS}}}
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    tree = until(lambda: processes_of(root, str(run.id), "sft"), "no training was started")
    started = time.perf_counter()
    client.set_flow_run_state(run.id, Cancelling())
    psutil.wait_procs(tree, timeout=PATIENCE_SECONDS)
    state = ended(client, run.id)
    if not state.is_cancelled():
        raise UserError(f"the flow run was not cancelled: {state.message}")
    return time.perf_counter() - started


def ended(client: SyncPrefectClient, run_id: UUID) -> State:
    """The last state of a run, once it has ended."""

    def last_state() -> State | None:
        state = client.read_flow_run(run_id).state
        return state if state is not None and state.is_final() else None

    return until(last_state, "the flow run does not end")


def processes_of(root: Path, run_id: str, stage: str) -> list[psutil.Process] | None:
    """The process of a flow run and all that it has started, the former first; None until the stage runs.

    Args:
        root: the checkout that the run's workspace belongs to.
    """
    workspaces = str(root / WORKSPACES)
    for found in psutil.process_iter(["cwd", "cmdline"]):
        folder = found.info["cwd"] or ""
        if folder.startswith(workspaces) and folder.endswith(run_id[:8]) and found.info["cmdline"][-1:] == [stage]:
            chain = [found, *found.parents()]
            (flow,) = [parent for parent in chain if "prefect.engine" in parent.cmdline()]
            if chain.index(flow) >= 3:  # DVC's command line ends with the name of the stage too
                return [flow, *flow.children(recursive=True)]
    return None


def until(ask: Callable[[], T | None], otherwise: str) -> T:
    """What `ask` gives as soon as it is not None.

    Raises:
        UserError: it gave nothing for half an hour; the message is `otherwise`.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := ask()) is None:
        if time.monotonic() > deadline:
            raise UserError(otherwise)
        time.sleep(0.2)
    return found
