"""One stage of dvc.yaml, run by DVC itself: the same command as by hand, with its output in the log."""

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from flows.guard import guarded, stop
from flows.progress import LineReader

# What the stages of dvc.yaml are called, in an order that satisfies their dependencies.
STAGES = ("ingest", "validate", "policy", "reward_models", "sft", "candidates", "rescore", "train", "evaluate")

CHUNK_BYTES = 65536
TAIL_LINES = 200
CAUSE_LINES = 20
NOT_RUN = re.compile(r"^Stage '[^']+' (didn't change, skipping|is cached - skipping run)")
# Advice about git for who runs DVC by hand.
NOISE = re.compile(r"^(Updating lock file|To (track|enable)|\s+git add|\s+dvc config|Use `dvc push`)")


class StageFailed(Exception):
    """A stage ended with an error; the message is the stage's own."""


def repro(stage: str, root: Path, environment: Mapping[str, str], log: Callable[[str], object]) -> bool:
    """`dvc repro --single-item STAGE` in the project at `root`.

    Args:
        log: called with every line of output.

    Returns:
        True if the stage ran, False if DVC had its outputs already.

    Raises:
        StageFailed: with the last error the stage or DVC printed.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def listen(line: str) -> None:
        tail.append(line)
        if not NOISE.match(line):
            log(line)

    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    status = run_guarded(command, root, environment, listen)
    if status != 0:
        raise StageFailed(f"{stage}: {cause_of(list(tail)) or f'exit status {status}'}")
    return not any(NOT_RUN.match(line) for line in tail)


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
