"""A disk that is full when a stage begins or while it writes: what is said, and whether the next run mends it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from flows.mend import mend
from reliability.kills import Reference, quiet_reference
from reliability.results import write

DISK_BYTES = 256 << 20
# What is left of it when a stage starts: for a few log lines, for small outputs, for half of a model.
LEFT_BYTES = (4 << 10, 64 << 10, 256 << 10)
# The last is what DVC says where it finds no room to check out a file.
SAID = ("the disk is full", "No space left on device", "No possible cache link types")


class Filled(BaseModel):
    """A stage that ran with so many bytes left.

    Attributes:
        status: of that `dvc repro`; 0 where the space was enough.
        said: its last error line.
        damage: what was wrong with it or after the next one; nothing if all is well.
    """

    stage: str
    left: int
    status: int
    said: str
    damage: list[str]


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system in memory of DISK_BYTES at `place`; needs root."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def campaign(results: Path, scratch: Path) -> list[Filled]:
    """Fill the disk before every stage, to every level of LEFT_BYTES."""
    shutil.rmtree(scratch, ignore_errors=True)
    done: list[Filled] = []
    with small_disk(scratch / "disk") as disk:
        reference = quiet_reference(scratch / "logs", disk / "checkout")
        for stage in reference.stages:
            for left in LEFT_BYTES:
                done.append(_fill(reference, stage, left, disk / "filler"))
                print(done[-1].model_dump_json(), flush=True)
                write(results, [filled.model_dump() for filled in done])
    return done


def _fill(reference: Reference, stage: str, left: int, filler: Path) -> Filled:
    reference.rewind(stage)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(filler.parent).free - left)
    status, text = reference.checkout.dvc("repro")
    filler.unlink()
    damage = ["a traceback was shown"] if "Traceback" in text else []
    if status and not any(sentence in text for sentence in SAID):
        damage.append(f"it does not say that the disk is full: {text.strip()[-500:]}")
    said = next((line for line in reversed(text.splitlines()) if any(sentence in line for sentence in SAID)), "")
    mend(reference.checkout.root)
    again, text = reference.checkout.dvc("repro")
    damage += (
        [f"dvc repro: {text.strip()[-500:]}"] if again else [*reference.checkout.damage(), *reference.differences()]
    )
    return Filled(stage=stage, left=left, status=status, said=said, damage=damage)
