"""Turns: what the runs of one checkout do one after the other.

Two flow runs, or a flow run and `clha register`, can end in the same model at the same time. Whether the model has a
record and a version already, and which model is champion, is then asked and answered by one of them at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clha_core import paths
from clha_core.tracking.lineage import project_home


@contextmanager
def turn_at_finished_models(root: Path) -> Iterator[None]:
    """Hold the checkout's lock; while another process has it, say so and wait. May be entered again inside.

    The lock is the operating system's: a process that dies gives it back.

    Args:
        root: the checkout, or a workspace inside it.
    """
    file = project_home(root) / paths.SCRATCH / "finished-models.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting: another run is recording or registering its model (it holds {file})", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
