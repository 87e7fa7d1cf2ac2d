"""Real servers of our own that can be killed and started again on the same data."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

START_SECONDS = 120.0
AUTHORIZATION = "mlflow.server.auth:authenticate_request_basic_auth"  # MLflow's own, by name and password


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A command that listens at a port; a context manager that starts it and ends it with all that it started.

    Args:
        health: path that answers once the server is ready.
        environment: beside this process' own.
    """

    def __init__(
        self, command: list[str], port: int, health: str, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command, self._health, self._folder = command, health, folder
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "server.log").read_text(encoding="utf-8")[-3000:])
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it takes requests now."""
        try:
            with urllib.request.urlopen(self.url + self._health, timeout=5):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    @property
    def port(self) -> int:
        """Of 127.0.0.1."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL to it and all that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def mlflow_server(folder: Path, admin: tuple[str, str] | None = None) -> Server:
    """An MLflow server over a database in `folder`, artifacts through its proxy.

    Args:
        admin: name and password of its administrator; without, it has no accounts and lets everybody in.
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    if admin is None:
        return Server(command, port, "/health", folder)
    accounts = ["[mlflow]", "default_permission = READ", f"database_uri = sqlite:///{folder / 'accounts.db'}"]
    accounts += [f"admin_username = {admin[0]}", "authorization_function = " + AUTHORIZATION]
    (folder / "accounts.ini").write_text("\n".join(accounts) + "\n", encoding="utf-8")
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "accounts.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": admin[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "only-of-this-test",
    }
    return Server([*command, "--app-name", "basic-auth"], port, "/health", folder, environment)


S3_KEYS = {
    "AWS_ACCESS_KEY_ID": "faults",
    "AWS_SECRET_ACCESS_KEY": "only-of-this-test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
_GRPC = 10_000  # SeaweedFS takes a second port, this much above each


def s3_server(folder: Path) -> Server:
    """SeaweedFS over `folder`, open to S3_KEYS."""
    master, volume, filer, s3 = (_port_with_twin() for _ in range(4))
    identity = {
        "name": "faults",
        "credentials": [{"accessKey": S3_KEYS["AWS_ACCESS_KEY_ID"], "secretKey": S3_KEYS["AWS_SECRET_ACCESS_KEY"]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    command = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
    ]
    command += [f"-master.port={master}", "-master.telemetry=false", f"-volume.port={volume}", "-volume.max=0"]
    command += ["-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}", f"-s3.config={folder / 's3.json'}"]
    command += ["-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    return Server(command, s3, "/healthz", folder)


def _port_with_twin() -> int:
    while True:
        port = free_port()
        with socket.socket() as probe:
            if port + _GRPC < 65536 and probe.connect_ex(("127.0.0.1", port + _GRPC)):
                return port


def prefect_server(folder: Path) -> Server:
    """Prefect's server over a database in `folder`; clients find it at `url` + "/api"."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    return Server(command, port, "/api/health", folder, environment)
