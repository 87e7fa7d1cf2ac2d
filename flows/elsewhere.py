"""A step in a work pool: the run that has it done there, and the flow that does it.

The machine that does a step needs a clone of the project with the same git and DVC remotes, Prefect's address, and
MLFLOW_TRACKING_URI if trainings shall be recorded where the run is. `python -m flows.worker --pool NAME` waits there.
"""

import os
import time
from contextlib import suppress
from uuid import UUID

import httpx
from prefect import flow, get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Cancelling, Completed

from clha_core.errors import UserError
from clha_core.params import load_params
from clha_core.paths import PARAMS
from clha_core.tracking.lineage import FLOW_RUN_ID, FLOW_RUN_URL
from flows.exchange import Exchange, exchange_of, push_outputs
from flows.pools import STEP_FLOW
from flows.stage import StageFailed, repro
from flows.step import state_of
from flows.workspace import HOME, WORKSPACES, Workspace

POLL_SECONDS = 1.0
SERVERS_FAULT = 500  # and above


@task(task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def run_elsewhere(stage: str, pool: str, workspace: Workspace, exchange: Exchange) -> State[None]:
    """Have one stage done by a worker of `pool`, with the state of `workspace`, and take over what came of it.

    Raises:
        UserError: no worker has ever waited at the pool.
        StageFailed: the stage failed there, or its worker is gone.
    """
    logger = get_run_logger()
    exchange.give(workspace.root)
    origin = {FLOW_RUN_ID: os.environ[FLOW_RUN_ID], FLOW_RUN_URL: os.environ[FLOW_RUN_URL]}
    try:
        run = run_deployment(
            f"{STEP_FLOW}/{pool}",
            parameters={"stage": stage, "run_name": workspace.name, "origin": origin},
            flow_run_name=f"{workspace.name}-{stage}",
            timeout=0,
        )
        assert isinstance(run, FlowRun)  # a coroutine only inside an event loop
    except ObjectNotFound:
        raise UserError(
            f"no worker has been at the pool {pool!r} yet: start one with `make worker POOL={pool}`, on any machine."
        ) from None
    logger.info("%s goes to the pool %s; its log: %s", stage, pool, run.name)
    try:
        run = _ended(run.id)
    except BaseException:  # cancellation is not an Exception
        with get_client(sync_client=True) as client, suppress(httpx.HTTPError):
            client.set_flow_run_state(run.id, Cancelling(message="The run that it is a step of was ended."))
        raise
    state = run.state
    if state is None or not state.is_completed():
        raise StageFailed(f"{stage} in the pool {pool} ({run.name}): {state.message if state else 'no state'}")
    exchange.take(workspace.root)
    return Completed(name=state.name, message=f"in the pool {pool}: {state.message}")


def _ended(run_id: UUID) -> FlowRun:
    """The run, when it has ended; what it waits for is logged.

    A server that is away is waited for: the step goes on at its worker, and the time until then is not lost.
    """
    logger = get_run_logger()
    told = None
    with get_client(sync_client=True) as client:
        while True:
            try:
                run = client.read_flow_run(run_id)
            except httpx.HTTPError as error:  # what Prefect's client raises after a minute of its own retries
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < SERVERS_FAULT:
                    raise
                logger.warning("Prefect does not answer (%s): waiting for it, the step goes on meanwhile", error)
                time.sleep(POLL_SECONDS)
                continue
            if run.state is not None and run.state.is_final():
                return run
            if run.state is not None and run.state.name != told:
                told = run.state.name
                waiting = run.state.is_scheduled()
                logger.info("%s: %s%s", run.name, told, ", no worker has taken it yet" if waiting else "")
            time.sleep(POLL_SECONDS)


@flow(name=STEP_FLOW, persist_result=False, log_prints=True)
def clha_step(stage: str, run_name: str, origin: dict[str, str]) -> State[None]:
    """One step of a run that was started elsewhere; you need not start this yourself.

    Args:
        stage: A stage of dvc.yaml.
        run_name: The run that it is a step of.
        origin: Id and page of that run, for the record.
    """
    logger = get_run_logger()
    os.environ |= origin
    exchange = exchange_of(HOME, run_name)
    name = f"{run_name}-{stage}"
    workspace = Workspace(HOME, HOME / WORKSPACES / name, name)
    with workspace.alone():
        if workspace.is_new:
            workspace.create(exchange.fetch)
        exchange.take(workspace.root)
        logger.info("Workspace of this step: %s", workspace.root)
        for linked in workspace.link_local_inputs(load_params(workspace.root / PARAMS)):
            logger.info("%s is not in git: the step reads it from the checkout of this machine", linked)
        ran = repro(stage, workspace.root, os.environ, logger.info, pull=True)
        push_outputs(workspace.root, [stage])
        exchange.give(workspace.root)
        workspace.remove()
    return state_of(ran)
