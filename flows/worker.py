"""`python -m flows.worker --pool NAME`: does, on this machine, the steps that flow runs send to a work pool.

Needs PREFECT_API_URL, and MLFLOW_TRACKING_URI where trainings shall be recorded centrally.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Annotated

import httpx
import typer
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import get_current_settings
from prefect.types.entrypoint import EntrypointType
from rich.console import Console
from rich.markup import escape

from clha_core.addresses import public_address
from clha_core.errors import UserError
from flows.elsewhere import clha_step
from flows.guard import guarded, stop
from flows.start import interrupt
from flows.workspace import HOME


def require_pool(pool: str) -> None:
    """Have a work pool for processes under that name, and the deployment of a step in it.

    Raises:
        UserError: nothing says where Prefect's server is.
    """
    if not get_current_settings().api.url:
        raise UserError("PREFECT_API_URL is not set: it says where the server is whose runs send their steps here.")
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


def sentence_of(error: Exception) -> str:
    """What a user can do about it."""
    if isinstance(error, UserError):
        return str(error)
    where = public_address(str(get_current_settings().api.url))
    return f"Prefect at {where} does not answer ({error}): start it there, or correct PREFECT_API_URL."


def main(
    pool: Annotated[str, typer.Option(help="Work pool; it is made if there is none of that name.")],
    limit: Annotated[int, typer.Option(min=1, help="Steps at once on this machine.")] = 1,
) -> None:
    """Wait for steps until Ctrl-C."""
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, interrupt)
    try:
        require_pool(pool)
    except (UserError, httpx.TransportError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(sentence_of(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
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
