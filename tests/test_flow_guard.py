"""A guarded command never outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.guard import guarded, stop

ROOT = Path(__file__).resolve().parents[1]
# A command that starts a process, tells its id in a file, and waits for it: as DVC does with a stage.
FAMILY = "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {child!r}, {file!r}]); c.wait()"
CHILD = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + CHILD


def family(file: Path, child: str = CHILD) -> list[str]:
    return [sys.executable, "-c", FAMILY.format(child=child, file=str(file))]


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.05)


def pid_in(file: Path) -> int:
    until(lambda: file.exists() and file.read_text() != "")
    return int(file.read_text())


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# As the launcher of a training with several processes starts each of them.
OWN_SESSION = "import os; os.setsid(); "


@pytest.mark.parametrize("session", ["", OWN_SESSION], ids=["in its group", "in a session of its own"])
@pytest.mark.parametrize("child", [CHILD, STUBBORN], ids=["obeys", "ignores SIGTERM"])
def test_stopping_it_ends_what_the_command_started(tmp_path: Path, child: str, session: str) -> None:
    child = session + child
    process = subprocess.Popen(guarded(family(tmp_path / "pid", child)), start_new_session=True)
    grandchild = pid_in(tmp_path / "pid")
    stop(process)
    until(lambda: not lives(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_killing_the_parent_ends_what_the_command_started(tmp_path: Path) -> None:
    starter = (
        "import subprocess; from flows.guard import guarded; "
        f"subprocess.Popen(guarded({family(tmp_path / 'pid')!r}), start_new_session=True).wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT)
    grandchild = pid_in(tmp_path / "pid")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not lives(grandchild))


def test_the_exit_status_of_the_command_is_passed_on() -> None:
    command = guarded([sys.executable, "-c", "raise SystemExit(7)"])
    assert subprocess.run(command, start_new_session=True, check=False).returncode == 7
