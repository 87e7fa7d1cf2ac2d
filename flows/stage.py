"""One stage of dvc.yaml, run by DVC itself: the same command as by hand, with its output in the log."""

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from flows.guard import guarded, stop
from flows.mend import mend
from flows.progress import LineReader

# What the stages of dvc.yaml are called, in an order that satisfies their dependencies.
STAGES = ("ingest", "validate", "policy", "reward_models", "sft", "candidates", "rescore", "train", "evaluate")

CHUNK_BYTES = 65536
TAIL_LINES = 200
CAUSE_LINES = 20
UNCHANGED = re.compile(r"^Stage '([^']+)' didn't change, skipping")
RUNNING = re.compile(r"^Running stage '[^']+':")
# DVC does not wait for a lock that another process of it has; a lock of a process that died it removes by itself.
BUSY = re.compile(
    r"is busy, it is being blocked by|Unable to acquire lock|^  \(PID \d+\): |^If there are no processes with such PIDs"
)
BUSY_SECONDS = 2.0
# Advice about git for who runs DVC by hand.
NOISE = re.compile(r"^(Updating lock file|To (track|enable)|\s+git add|\s+dvc config|Use `dvc push`)")


class StageFailed(Exception):
    """A stage ended with an error; the message is the stage's own."""


def repro(
    stage: str, root: Path, environment: Mapping[str, str], log: Callable[[str], object], *, pull: bool = False
) -> bool:
    """`dvc repro --single-item STAGE` in the project at `root`; while another DVC is busy there, it waits.

    Args:
        log: called with every line of output.
        pull: get from the DVC remote what the stage needs, or has made before.

    Returns:
        True if the stage ran, False if DVC had its outputs already.

    Raises:
        StageFailed: with the last error the stage or DVC printed.
    """
    waiting = False
    while True:
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        started: list[str] = []

        def listen(line: str, tail: deque[str] = tail, started: list[str] = started) -> None:
            tail.append(line)
            started.extend(RUNNING.findall(line))
            if not NOISE.match(line) and not BUSY.search(line):
                log(line)

        status = run_guarded(_command(stage, *(["--pull"] if pull else [])), root, environment, listen)
        if status == 0:
            return bool(started)
        if mended := mend(root):
            for sentence in mended:
                log(sentence)
            continue
        # A stage that was started was not kept waiting, whatever locks it may speak of itself.
        if started or not any(BUSY.search(line) for line in tail):
            raise StageFailed(f"{stage}: {cause_of(list(tail)) or f'exit status {status}'}")
        if not waiting:
            log(f"waiting: another DVC command is busy in {root}; {stage} goes on when it has ended")
            waiting = True
        time.sleep(BUSY_SECONDS)


def unchanged_stages(root: Path, environment: Mapping[str, str]) -> set[str]:
    """Stages that have nothing to do, and nothing to do before them: one look by DVC in place of one for each.

    A dry run knows nothing of what follows a stage that would run, so these are the stages before the first such.
    """
    lines: list[str] = []
    run_guarded([sys.executable, "-m", "dvc", "repro", "--dry"], root, environment, lines.append)
    certain = takewhile(lambda line: not RUNNING.match(line), lines)
    return {found[1] for line in certain if (found := UNCHANGED.match(line))}


def would_run(stage: str, root: Path, environment: Mapping[str, str]) -> bool:
    """Whether `repro` would run the stage, as far as DVC knows without looking into its run cache; in doubt, yes."""
    lines: list[str] = []
    failed = run_guarded(_command(stage, "--dry"), root, environment, lines.append)
    return failed != 0 or any(map(RUNNING.match, lines))


def _command(stage: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "dvc", "repro", "--single-item", *options, stage]


def cause_of(lines: list[str]) -> str:
    """What went wrong, out of the output of a failed stage: its error in full, else its last line, else DVC's."""
    own = [line for line in lines if not line.startswith("ERROR: failed to reproduce")] or lines
    starts = [place for place, line in enumerate(own) if line.startswith(("error: ", "ERROR: "))]
    cause = own[starts[-1] :] if starts else own[-1:]
    cause = [line for line in cause if line.strip()][:CAUSE_LINES]
    return "\n".join(cause).removeprefix("error: ").removeprefix("ERROR: ")


def run_guarded(command: list[str], root: Path, environment: Mapping[str, str], listen: Callable[[str], object]) -> int:
    """Run a command and hand its lines on; whatever interrupts this, nothing of the command stays behind.

    Returns:
        The command's exit status.
    """
    # The commands of dvc.yaml say `python`: it has to be the one of this environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    process = subprocess.Popen(
        guarded(command),
        cwd=root,
        env={**environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # of its own, else progress bars run into the lines of the other
        start_new_session=True,
    )
    with process, DefaultSelector() as selector:
        try:
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                selector.register(stream, EVENT_READ, LineReader())
            while selector.get_map():
                for key, _ in selector.select():
                    chunk = os.read(key.fd, CHUNK_BYTES)
                    for line in key.data.feed(chunk, final=not chunk):
                        listen(line)
                    if not chunk:
                        selector.unregister(key.fileobj)
        except BaseException:  # cancellation is not an Exception
            stop(process)
            raise
    return process.returncode
