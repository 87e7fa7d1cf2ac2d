"""docker-compose.yml without Docker: each service's own command and environment, as processes of this machine.

What a container would bring is put in place of it, and nothing else: names of hosts are 127.0.0.1, ports are free ones,
folders and files that would be mounted are folders and files of a scratch folder.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from expandvars import expand

from flows.guard import guarded, stop

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = "docker-compose.yml"
START_SECONDS = 300.0
PORTS = (5432, 8333, 9333, 9340, 8888, 4200, 5000, 8080)
GRPC = 10000  # SeaweedFS takes this much more than each of its ports, too


def compose(text: str, environment: dict[str, str]) -> dict[str, Any]:
    """A compose file with its variables filled in, as `docker compose config` does it.

    Raises:
        expandvars.ParameterNullOrNotSet: a variable that the file insists on is missing.
    """

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [filled(item) for item in value]
        if isinstance(value, str):
            return "$".join(expand(part, environ=environment) for part in value.split("$$"))
        return value

    return filled(yaml.safe_load(text))


def image_environment() -> dict[str, str]:
    """What our image sets: the ENV lines of the Dockerfile."""
    _, _, settings = (ROOT / "Dockerfile").read_text(encoding="utf-8").partition("\nENV ")
    return dict(re.findall(r"([A-Z_]+)=(\S+)", settings.split("\nWORKDIR")[0]))


def postgres_programs() -> Path:
    """The folder of PostgreSQL's programs; the test is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    return found[-1].parent


def free_ports() -> dict[int, int]:
    """A free port for each of PORTS, below those that the system gives to others."""
    free: dict[int, int] = {}
    candidates = iter(range(20000 + os.getpid() % 2000, 22768))
    for port in PORTS:
        free[port] = next(found for found in candidates if is_free(found) and is_free(found + GRPC))
    return free


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@dataclass
class Stack:
    """The services of the compose file of the checkout at `project`, with the secrets of its .env."""

    project: Path
    scratch: Path
    programs: Path = field(default_factory=postgres_programs)
    ports: dict[int, int] = field(default_factory=free_ports)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.secrets = {name: value or "" for name, value in dotenv_values(self.project / ".env").items()}
        text = (self.project / COMPOSE).read_text(encoding="utf-8")
        hosts = "|".join(yaml.safe_load(text)["services"])
        text = re.sub(rf"\b({hosts}|0\.0\.0\.0):(\d{{4}})\b", r"127.0.0.1:\2", text.replace("=0.0.0.0", "=127.0.0.1"))
        text = re.sub(rf"(_HOST|PGHOST): ({hosts})$", r"\1: 127.0.0.1", text, flags=re.M)
        text = re.sub(r"--host, 0\.0\.0\.0", "--host, 127.0.0.1", text)
        for inside, outside in self.ports.items():
            text = re.sub(rf"\b{inside}\b", str(outside), text)
        self.file = compose(text, self.secrets)
        self.services: dict[str, Any] = self.file["services"]
        self.places = {service: self.mount(service) for service in self.services}

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{self.ports[port]}"

    def log(self, service: str) -> Path:
        return self.scratch / f"{service}.log"

    def mount(self, service: str) -> dict[str, str]:
        """Path in the container to path here, for all that is mounted; configs are written."""
        found = {}
        for volume in self.services[service].get("volumes", []):
            source, target, *_ = volume.split(":")
            here = self.project / source if source.startswith((".", "/")) else self.scratch / source
            if not here.exists():
                here.mkdir()
            found[target] = str(here.resolve())
        for config in self.services[service].get("configs", []):
            here = self.scratch / config["source"]
            here.write_text(self.file["configs"][config["source"]]["content"], encoding="utf-8")
            found[config["target"]] = str(here)
        for target in self.services[service].get("tmpfs", []):
            here = self.scratch / f"{service}-tmpfs"
            here.mkdir(exist_ok=True)
            found[target] = str(here)
        return found

    def here(self, service: str, text: str) -> str:
        """`text` with the container's paths replaced."""
        places = self.places[service]
        paths = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
        return re.sub(rf"(?<![\w/.])({paths})(?=/|$)", lambda found: places[found[0]], text) if places else text

    def environment(self, service: str) -> dict[str, str]:
        """The service's own, and no variable of this process that says where anything is."""
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        path = os.pathsep.join([str(Path(sys.executable).parent), str(self.programs), os.environ["PATH"]])
        own = {name: self.here(service, value) for name, value in self.services[service].get("environment", {}).items()}
        return {"PATH": path, "HOME": str(home), "OMP_NUM_THREADS": "1", **image_environment(), **own}

    def folder(self, service: str) -> str:
        """Where the service's command starts."""
        inside = self.services[service].get("working_dir")
        return self.here(service, inside) if inside else str(self.scratch)

    def command(self, service: str) -> list[str]:
        entry, command = self.services[service].get("entrypoint", []), self.services[service]["command"]
        if "seaweedfs" in self.services[service]["image"] and not entry:
            entry = ["weed"]  # the entry point of that image
        return [self.here(service, part) for part in [*entry, *command]]

    def run(self, service: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """A command in the service's environment, to its end."""
        return subprocess.run(
            command,
            cwd=self.folder(service),
            env=self.environment(service),
            capture_output=True,
            text=True,
            check=False,
        )

    def is_healthy(self, service: str) -> bool:
        """What the service's own health check says."""
        _, *check = self.services[service]["healthcheck"]["test"]
        return self.run(service, check).returncode == 0

    def start(self, service: str, stack: ExitStack) -> None:
        """Start a service once those that it depends on are ready; one that has no health check runs to its end."""
        for needed in self.services[service].get("depends_on", {}):
            self.wait_until_healthy(needed)
        environment, command = self.environment(service), self.command(service)
        if service == "postgres":
            environment["PGDATA"] = self.places[service]["/var/lib/postgresql/data"]
            command = [*self.as_postgres(), *command]
            self.create_databases(environment)
        stream = stack.enter_context(self.log(service).open("wb"))
        process = subprocess.Popen(
            guarded(command),
            cwd=self.folder(service),
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        stack.callback(stop, process)
        self.running[service] = process
        if "healthcheck" not in self.services[service]:
            assert process.wait(START_SECONDS) == 0, self.log(service).read_text(encoding="utf-8")

    def wait_until_healthy(self, service: str) -> None:
        """Wait for the service's own health check; the test fails with its log if it ends, or takes long."""
        deadline = time.monotonic() + START_SECONDS
        while "healthcheck" in self.services[service] and not self.is_healthy(service):
            log = self.log(service).read_text(encoding="utf-8", errors="replace")[-4000:]
            assert self.running[service].poll() is None, f"{service} has ended:\n{log}"
            assert time.monotonic() < deadline, f"{service} is not healthy:\n{log}"
            time.sleep(0.5)

    @staticmethod
    def as_postgres() -> list[str]:
        """PostgreSQL refuses to run as root; its package makes this user."""
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []

    def create_databases(self, environment: dict[str, str]) -> None:
        """What the entry point of PostgreSQL's image does with a new volume: initdb, then the mounted scripts."""
        data, scripts = environment["PGDATA"], self.places["postgres"]["/docker-entrypoint-initdb.d"]
        if os.getuid() == 0:
            shutil.chown(data, "postgres")
        password = self.scratch / "superuser"
        password.write_text(environment["POSTGRES_PASSWORD"], encoding="utf-8")

        def step(*command: str, become: bool = True) -> None:
            command = (*self.as_postgres(), *command) if become else command
            subprocess.run(command, cwd="/", env=environment, check=True, capture_output=True)

        step("initdb", "--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync")
        with (Path(data) / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(f"unix_socket_directories = '{data}'\nfsync = off\n")
        port = str(self.ports[5432])
        step("pg_ctl", "--wait", f"--options=-p {port}", f"--log={data}/first.log", "start")
        environment = {**environment, "PGPASSWORD": environment["POSTGRES_PASSWORD"]}
        for script in sorted(Path(scripts).glob("*.sql")):
            step("psql", "--host=127.0.0.1", f"--port={port}", "--username=postgres", f"--file={script}", become=False)
        step("pg_ctl", "--wait", "--mode=fast", "stop")

    def order(self) -> list[str]:
        """The services, each after those that it depends on."""
        done: list[str] = []
        while rest := [name for name in self.services if name not in done]:
            done.append(next(name for name in rest if set(self.services[name].get("depends_on", {})) <= set(done)))
        return done


@contextmanager
def native_stack(project: Path) -> Iterator[Stack]:
    """All services, running and healthy until the block ends."""
    # Not pytest's folder, which nobody but its owner may enter: PostgreSQL has a user of its own.
    with tempfile.TemporaryDirectory(prefix="clha-stack-") as scratch, ExitStack() as running:
        Path(scratch).chmod(0o755)
        stack = Stack(project, Path(scratch))
        for service in stack.order():
            stack.start(service, running)
        for service in stack.services:
            stack.wait_until_healthy(service)
        yield stack
