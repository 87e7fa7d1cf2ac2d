"""The start command refuses what it cannot do before it starts anything."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_a_busy_port_is_named_with_the_option_to_change_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "flows.start", "--port", str(port)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"error: port {port} of 127.0.0.1 cannot be used" in result.stderr
    assert "--port" in result.stderr


def test_a_number_that_is_no_port_is_refused() -> None:
    command = [sys.executable, "-m", "flows.start", "--port", "70000"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "65535" in result.stderr


@pytest.mark.parametrize(
    ("address", "sentence"),
    [("", "PREFECT_API_URL is not set"), ("http://127.0.0.1:1/api", "http://127.0.0.1:1/api does not answer")],
)
def test_a_worker_that_finds_no_server_says_so(address: str, sentence: str, tmp_path: Path) -> None:
    quick = {"PREFECT_API_URL": address, "PREFECT_CLIENT_MAX_RETRIES": "0", "PREFECT_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "flows.worker", "--pool", "gpu"]
    environment = {**os.environ, **quick}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
