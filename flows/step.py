"""A step of the flow: a stage of dvc.yaml as a visible task."""

import os

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.gpu import gpu_turn
from flows.stage import repro, would_run
from flows.workspace import Workspace

CACHED = "Cached"


@task(task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(stage: str, workspace: Workspace, *, unchanged: bool, pull: bool = False) -> State[None]:
    """One stage of dvc.yaml; the state is named Cached where DVC had its outputs already.

    Args:
        unchanged: DVC has said already that there is nothing to do.
        pull: inputs may have been made by another machine, and are in the DVC remote.
    """
    if unchanged:
        return state_of(ran=False)
    logger = get_run_logger()
    with gpu_turn(stage, lambda: not would_run(stage, workspace.root, os.environ), logger.info):
        return state_of(repro(stage, workspace.root, os.environ, logger.info, pull=pull))


def state_of(ran: bool) -> State[None]:
    """The state of a step that DVC ran, or had no need to run."""
    if ran:
        return Completed(message="ran")
    get_run_logger().info("cached: nothing that this step depends on has changed")
    return Completed(name=CACHED, message="nothing changed; outputs from DVC's cache")
