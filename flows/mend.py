"""What a kill may leave in DVC's folders so that every later `dvc repro` fails; `python -m flows.mend` removes it.

DVC writes `.dvc/tmp/rwlock` and `dvc.lock` in place, and makes a folder of its run cache before the file in it. Locks
of processes that are gone it removes by itself.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import yaml

from clha_core.replacing import replacing

CONFLICT = b"<<<<<<< "  # git's mark
SETTLED_SECONDS = 60.0  # DVC at work fills a new folder at once


def mend(root: Path) -> list[str]:
    """Put back or remove files that a kill cut off, and empty folders of the run cache, in the project at `root`.

    With an older `dvc.lock` or none, DVC knows from its run cache what the stages have made since.

    Returns:
        A sentence for everything that was mended.
    """
    temporary = root / ".dvc" / "tmp"
    return [
        *_cut_off(temporary / "rwlock", json.loads, temporary / "rwlock.lock"),
        *_cut_off(root / "dvc.lock", _locked_stages, temporary / "lock"),
        *mend_cache(root),
    ]


def mend_cache(root: Path) -> list[str]:
    """Remove empty folders of the run cache alone: what a run elsewhere shares with the project at `root`."""
    return list(_empty_runs(root / ".dvc" / "cache" / "runs"))


def _cut_off(file: Path, read: Callable[[bytes], object], guard: Path) -> Iterator[str]:
    if _readable(file, read):
        return
    from dvc.lock import LockError, make_lock  # takes half a second, and is hardly ever needed

    guard.parent.mkdir(parents=True, exist_ok=True)
    with suppress(LockError), make_lock(str(guard), tmp_dir=str(guard.parent)):  # not held: DVC is writing the file
        if not _readable(file, read):
            yield f"{_put_back(file)}: a kill had cut it off, and DVC stops at one that it cannot read"


def _put_back(file: Path) -> str:
    """The file of the last commit; where git has none, or that one is cut off too, there is none then."""
    show = ["git", "show", f"HEAD:./{file.name}"]
    committed = subprocess.run(show, cwd=file.parent, capture_output=True, check=False)
    if committed.returncode or committed.stdout == file.read_bytes():
        file.unlink()
        return f"removed {file}"
    with replacing(file) as partial:
        partial.write_bytes(committed.stdout)
    return f"put back {file} of the last commit"


def _readable(file: Path, read: Callable[[bytes], object]) -> bool:
    try:
        read(file.read_bytes())
    except FileNotFoundError:
        return True
    except (ValueError, yaml.YAMLError):
        return False
    return True


def _locked_stages(text: bytes) -> None:
    if CONFLICT in text:  # the user's to resolve
        return
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text))
    except Invalid as error:
        raise ValueError("cut off") from error


def _empty_runs(runs: Path) -> Iterator[str]:
    for folder in sorted(runs.glob("??/*")):
        if time.time() - folder.stat().st_mtime > SETTLED_SECONDS and not any(folder.iterdir()):
            folder.rmdir()
            yield f"removed {folder}: a kill had left it empty, and DVC stops at an empty folder there"


if __name__ == "__main__":
    for sentence in mend(Path()):
        print(sentence)
