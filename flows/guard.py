"""Runs one command so that it never outlives who started it: `python flows/guard.py PARENT_PID COMMAND...`.

DVC and Prefect start processes of their own and leave them running when they are told to stop. The guard is the
leader of a process group that holds all of them, but for the ranks of a training, whose launcher gives them sessions
of their own. It ends the whole family when it is told to stop, and (on Linux) when its parent dies, even by SIGKILL.
"""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import FrameType

import psutil

GRACE_SECONDS = 5.0
PR_SET_PDEATHSIG = 1


def guarded(command: list[str]) -> list[str]:
    """The command line that runs `command` under a guard; start it with start_new_session=True."""
    return [sys.executable, "-P", __file__, str(os.getpid()), *command]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a guarded command and all that it started; returns when nothing is left."""
    process.terminate()
    try:
        process.wait(2 * GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def members_of(group: int) -> set[psutil.Process]:
    """A process group without its leader."""
    members = set()
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group != process.pid:
                members.add(process)
    return members


def end_family(signum: int, frame: FrameType | None) -> None:
    """Ask every member of the own group to end, wait for all descendants, and kill what is left, the guard included."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    group = os.getpgrp()
    # Now: once its launcher is gone, nothing leads to a rank any more.
    family = members_of(group) | set(psutil.Process().children(recursive=True))
    os.killpg(group, signal.SIGTERM)
    _, left = psutil.wait_procs(family, GRACE_SECONDS)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    os.killpg(group, signal.SIGKILL)


def main() -> int:
    """Run the command to its end and pass its exit status on."""
    parent, *command = sys.argv[1:]
    signal.signal(signal.SIGTERM, end_family)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before the line above
        return 1
    return subprocess.Popen(command).wait()


if __name__ == "__main__":
    sys.exit(main())
