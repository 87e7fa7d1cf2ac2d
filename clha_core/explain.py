"""Sentences for errors that are nobody's bug: the disk is full, the MLflow server is down, a file is not there.

They can come from any line that writes or records, out of any library, each of which has its own exceptions for them.
"""

import errno
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# SQLite, safetensors and Arrow name the reason only in their texts; torch says no more than that it was writing.
FULL_TEXTS = (
    *("no space left on device", "disk is full", "disk quota exceeded", "file too large"),
    *("unexpected pos", "pytorchstreamwriter failed"),
)
# What a library hides altogether, the disk tells.
FULL_BYTES = 1 << 20


def sentence_for(error: Exception) -> str | None:
    """What happened and what to do, in place of a traceback; None where only a traceback tells."""
    causes = list(_chain(error))
    if any(_says_full(cause) for cause in causes) or shutil.disk_usage(Path()).free < FULL_BYTES:
        file = next((f" at {cause.filename}" for cause in causes if isinstance(cause, OSError) and cause.filename), "")
        return (
            f"the disk is full{file}: make space, then run the same command again. Steps that had ended are kept, "
            "and a training goes on from its last checkpoint."
        )
    if "mlflow" in sys.modules:  # else it cannot be MLflow's
        from mlflow.exceptions import MlflowException

        from clha_core.tracking.outbox import is_down
        from clha_core.tracking.server import refuses_account, unusable

        for cause in causes:
            if isinstance(cause, MlflowException) and (is_down(cause) or refuses_account(cause)):
                return unusable(cause)
    if isinstance(error, OSError) and isinstance(error.filename, str | Path) and error.strerror:
        return f"{error.filename} cannot be used: {error.strerror.lower()}. Correct the path, or what is there."
    return None


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(text in str(error).lower() for text in FULL_TEXTS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
