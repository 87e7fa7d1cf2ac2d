"""Malformed inputs, thousands of them, to every reader of `readers`: how many were read, refused, or found a fault."""

import random
import shutil
import tempfile
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck

from clha_core.errors import UserError
from reliability.corrupt import corrupted
from reliability.nearly_valid import NEARLY_VALID
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


def bytes_campaign(count: int, seed: int, readers: Iterable[Reader] = READERS) -> dict[str, Tally]:
    """`count` corrupted files for every reader; the same seed gives the same files."""
    tallies = {}
    with tempfile.TemporaryDirectory() as scratch:
        for reader in readers:
            chance = random.Random(f"{seed} {reader.name}")
            tally = tallies[reader.name] = Tally()
            for _ in range(count):
                data = reader.pack(corrupted(chance, chance.choice(reader.valid)))
                feed(reader, data, tally, Path(scratch))
    return tallies


def structured_campaign(count: int, seed: int) -> dict[str, Tally]:
    """`count` nearly valid files for each reader of NEARLY_VALID."""
    tallies = {}
    with tempfile.TemporaryDirectory() as scratch:
        for reader in (reader for reader in READERS if reader.name in NEARLY_VALID):
            tally = tallies[reader.name] = Tally()
            _generate(reader, count, seed, tally, Path(scratch))
    return tallies


def _generate(reader: Reader, count: int, seed: int, tally: Tally, scratch: Path) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @hypothesis.given(data=NEARLY_VALID[reader.name])
    def give(data: bytes) -> None:
        feed(reader, data, tally, scratch)

    give()
