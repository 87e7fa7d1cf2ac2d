"""`python -m flows.worker --pool NAME`: does, on this machine, the steps that flow runs send to a work pool.

Needs PREFECT_API_URL, and MLFLOW_TRACKING_URI where trainings shall be recorded centrally.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Annotated

import typer
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists
from prefect.types.entrypoint import EntrypointType
from rich.console import Console

from flows.elsewhere import clha_step
from flows.guard import guarded, stop
from flows.start import interrupt
from flows.workspace import HOME


def require_pool(pool: str) -> None:
    """Have a work pool for processes under that name, and the deployment of a step in it."""
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    deployment = clha_step.to_deployment(
        pool,
        work_pool_name=pool,
        description="A step of a run that was started elsewhere; see docs/operations.md.",
        tags=["clha", "step"],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
    deployment.apply()


def main(
    pool: Annotated[str, typer.Option(help="Work pool; it is made if there is none of that name.")],
    limit: Annotated[int, typer.Option(min=1, help="Steps at once on this machine.")] = 1,
) -> None:
    """Wait for steps until Ctrl-C."""
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, interrupt)
    require_pool(pool)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    process = subprocess.Popen(
        guarded([*command, "--pool", pool, "--limit", str(limit)]),
        cwd=HOME,
        env={**os.environ, "PYTHONPATH": str(HOME)},  # a step starts in a folder of Prefect's
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        raise typer.Exit(process.wait())
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped.")
    finally:
        stop(process)


if __name__ == "__main__":
    typer.run(main)
