"""Malformed inputs, thousands of them, to every reader of `readers`: how many were read, refused, or found a fault."""

import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from clha_core.errors import UserError
from reliability.corrupt import corrupted
from reliability.readers import READERS, Reader


@dataclass
class Tally:
    """What became of the inputs of one reader; `faults` has one traceback for each place that raised it."""

    read: int = 0
    refused: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    failed: int = 0

    @property
    def inputs(self) -> int:
        return self.read + self.refused + self.failed


def feed(reader: Reader, data: bytes, tally: Tally, scratch: Path) -> None:
    """Give one input to a reader and count what it does."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        reader.read(data, folder)
        tally.read += 1
    except UserError as error:
        str(error).encode("utf-8", errors="backslashreplace")  # as it would be printed
        tally.refused += 1
    except Exception as error:
        tally.failed += 1
        place = traceback.extract_tb(error.__traceback__)[-1]
        name = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        tally.faults.setdefault(name, f"{data[:500]!r}\n{traceback.format_exc()[-3000:]}")
    finally:
        shutil.rmtree(folder)


def bytes_campaign(
    count: int, seed: int, say: Callable[[str], object] = print, readers: Iterable[Reader] = READERS
) -> dict[str, Tally]:
    """`count` corrupted files for every reader; the same seed gives the same files."""
    tallies = {}
    with tempfile.TemporaryDirectory() as scratch:
        for reader in readers:
            chance = random.Random(f"{seed} {reader.name}")
            tally = tallies[reader.name] = Tally()
            for _ in range(count):
                feed(reader, reader.pack(corrupted(chance, chance.choice(reader.valid))), tally, Path(scratch))
            say(f"{reader.name}: {tally.read} read, {tally.refused} refused, {tally.failed} faults")
    return tallies
