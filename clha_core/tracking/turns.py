"""Turns: what the runs of one checkout do one after the other.

Two flow runs, or a flow run and `clha register`, can end in the same model at the same time. Whether the model has a
record and a version already, and which model is champion, is then asked and answered by one of them at a time. So is
whether the local MLflow database has its tables: MLflow itself makes them twice, and fails.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from clha_core import paths
from clha_core.tracking.lineage import project_home
from clha_core.waiting import held

FINISHED_MODELS = "the records of finished models"
DATABASE = "the MLflow database"


@contextmanager
def turn(root: Path, subject: str) -> Iterator[None]:
    """Have `subject` for oneself; while another process has it, say so and wait. May be entered again inside.

    Args:
        root: the checkout, or a workspace inside it.
        subject: FINISHED_MODELS or DATABASE.
    """
    file = project_home(root) / paths.SCRATCH / "locks" / subject.removeprefix("the ").replace(" ", "-")
    file.parent.mkdir(parents=True, exist_ok=True)
    with held(FileLock(file, is_singleton=True), f"another run is busy with {subject}"):
        yield
