"""What a kill may leave in DVC's folders so that every later `dvc repro` fails; `python -m flows.mend` removes it.

DVC writes `.dvc/tmp/rwlock` in place, and makes a folder of its run cache before the file in it. Locks of processes
that are gone it removes by itself.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

SETTLED_SECONDS = 60.0  # DVC at work fills a new folder at once


def mend(root: Path) -> list[str]:
    """Remove an unreadable lock file and empty folders of the run cache from the project at `root`.

    Returns:
        A sentence for everything removed.
    """
    return [*_unreadable_lock(root / ".dvc" / "tmp"), *_empty_runs(root / ".dvc" / "cache" / "runs")]


def _unreadable_lock(folder: Path) -> Iterator[str]:
    lock = folder / "rwlock"
    if _readable(lock):
        return
    from dvc.lock import make_lock  # takes half a second, and is hardly ever needed

    with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):  # no DVC is writing the file meanwhile
        if not _readable(lock):
            lock.unlink()
            yield f"removed {lock}: a kill had cut it off, and DVC stops at one that it cannot read"


def _readable(lock: Path) -> bool:
    try:
        json.loads(lock.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def _empty_runs(runs: Path) -> Iterator[str]:
    for folder in sorted(runs.glob("??/*")):
        if time.time() - folder.stat().st_mtime > SETTLED_SECONDS and not any(folder.iterdir()):
            folder.rmdir()
            yield f"removed {folder}: a kill had left it empty, and DVC stops at an empty folder there"


if __name__ == "__main__":
    for sentence in mend(Path()):
        print(sentence)
