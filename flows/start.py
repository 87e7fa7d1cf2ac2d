"""`python -m flows.start`: Prefect's server, MLflow's server and the flows, on this machine only, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from clha_core import paths
from clha_core.addresses import public_address
from clha_core.errors import UserError
from clha_core.presets import PRESETS, preset_names
from clha_core.serving.address import is_loopback
from clha_core.terminal import terminal
from flows.guard import guarded, stop
from flows.quiet_ui import remove_telemetry_key

HOME = Path(__file__).resolve().parents[1]
STATE = HOME / paths.SCRATCH  # Prefect's database and the logs of the servers
UI_FILES = STATE / "prefect-ui"
START_SECONDS = 120.0
LOG_TAIL = 15


@dataclass(frozen=True)
class Service:
    """A process to start, and an address that answers once it is ready."""

    name: str
    command: list[str]
    health: str


def server_environment(host: str, port: int) -> dict[str, str]:
    """Settings of the servers and of Prefect's clients: state inside the project, no telemetry."""
    return {
        "PREFECT_HOME": str(STATE / "prefect"),
        "PREFECT_API_URL": f"http://{host}:{port}/api",
        "PREFECT_UI_URL": f"http://{host}:{port}/v2",
        # The UI asks the API at the port of this setting, whatever --port says.
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(UI_FILES),
        # Slots of a limit are held by leases: these outlive a restart of the server, and it frees those that ended.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",  # seconds until a run that was submitted starts
        # Processes for evaluating GenAI traces, which nothing here makes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def mlflow_command(host: str, port: int) -> list[str]:
    """MLflow's server over the same database and files that runs write to without a server.

    Artifacts are plain file addresses in both cases, so that either way of reading finds what the other recorded.
    """
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{HOME / 'mlflow.db'}"),
        *("--no-serve-artifacts", "--default-artifact-root", (HOME / "mlartifacts").as_uri()),
    ]


def require_free(host: str, port: int, option: str) -> None:
    """Raises:
    UserError: something listens at the port already, or the host is not an address of this machine.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {host} cannot be used ({error.strerror}): "
                f"stop what uses it, or choose another one with {option}."
            ) from None


def launch(service: Service, environment: Mapping[str, str], stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start a service with its output in a log; leaving `stack` stops it and all that it started."""
    log = stack.enter_context(log_of(service).open("wb"))
    process = subprocess.Popen(
        guarded(service.command),
        cwd=HOME,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    stack.callback(stop, process)
    return process


def log_of(service: Service) -> Path:
    """Where the service's output goes."""
    return STATE / "logs" / f"{service.name}.log"


def require_running(service: Service, process: subprocess.Popen[bytes]) -> None:
    """Raises:
    UserError: the process has ended, with the end of its log.
    """
    if process.poll() is not None:
        tail = log_of(service).read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:]
        raise UserError(f"{service.name} has stopped; the end of {log_of(service)}:\n" + "\n".join(tail))


def wait_until_healthy(service: Service, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service answers.

    Raises:
        UserError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        require_running(service, process)
        try:
            with urllib.request.urlopen(service.health, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise UserError(f"{service.name} does not answer at {service.health}; see {log_of(service)}.")


def run(host: str, port: int, mlflow_port: int, console: Console) -> None:
    """Start everything, say where it is, and stay until interrupted.

    Raises:
        UserError: a port is taken, or a service does not start or ends by itself.
    """
    environment = {**os.environ, **server_environment(host, port)}
    require_free(host, port, "--port")
    services = [
        Service(
            "prefect",
            [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)],
            f"http://{host}:{port}/api/health",
        )
    ]
    mlflow_url = environment.get("MLFLOW_TRACKING_URI")
    if mlflow_url is None:
        require_free(host, mlflow_port, "--mlflow-port")
        mlflow_url = environment["CLHA_MLFLOW_UI_URL"] = f"http://{host}:{mlflow_port}"
        services.append(Service("mlflow", mlflow_command(host, mlflow_port), f"{mlflow_url}/health"))
    last = preset_names(HOME / PRESETS)[-1]  # deployments are made in order
    deployed = f"{environment['PREFECT_API_URL']}/deployments/name/clha/{last}"
    flows = Service("flows", [sys.executable, "-m", "flows.serve"], deployed)

    logs = log_of(flows).parent
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with console.status("Starting Prefect, MLflow and the flows (half a minute)"):
            started = [(service, launch(service, environment, stack)) for service in services]
            for service, process in started:
                wait_until_healthy(service, process)
            remove_telemetry_key(UI_FILES / "v2")  # the server has filled it
            started.append((flows, launch(flows, environment, stack)))
            wait_until_healthy(*started[-1])
        console.print(f"Start runs:        {environment['PREFECT_UI_URL']}/deployments", highlight=False)
        console.print(f"Runs and models:   {public_address(mlflow_url)}", highlight=False)
        console.print(f"Logs: {logs}. Ctrl-C stops everything.", highlight=False)
        while True:
            for service, process in started:
                require_running(service, process)
            time.sleep(1)


def interrupt(signum: int, frame: FrameType | None) -> None:
    """SIGTERM ends this like Ctrl-C; and SIGINT too where a shell started it in the background, deaf to Ctrl-C."""
    raise KeyboardInterrupt


def main(
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default is for this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Prefect.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of MLflow.")] = 5000,
) -> None:
    """Start Prefect's server, MLflow's server and the flows; Ctrl-C stops everything."""
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, interrupt)
    console = terminal(stderr=True)
    if not is_loopback(host):
        console.print(
            "[bold yellow]warning:[/] nobody is asked for a password here: whoever reaches these ports can run code on "
            "this machine. For a team: docs/deployment.md.",
            soft_wrap=True,
        )
    try:
        run(host, port, mlflow_port, console)
    except KeyboardInterrupt:
        console.print("Stopped.")
    except UserError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
