"""Stand-ins for a reward model that workers load in no time, and that do at a row what a test wants of them."""

import hashlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def reward(text: str) -> float:
    """A number that looks random, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**47 - 1.0


@dataclass
class StandIn:
    """Rates by reward(); every call leaves a line in the file `log`: the ids of its rows."""

    log: Path

    def __call__(self, worker: int) -> "StandIn":
        return self

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> list[list[float]]:
        with self.log.open("a") as file:
            file.write(" ".join(row["id"] for row in rows) + "\n")
        return [[reward(response) for response in row["responses"]] for row in rows]

    def shards_rated(self) -> list[list[str]]:
        """Row ids by call, in all processes."""
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []


class Constant(StandIn):
    """The same for all texts."""

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> list[list[float]]:
        return [[0.0 for _ in row["responses"]] for row in rows]


@dataclass
class OneRowDiffers(StandIn):
    """`value` for the responses of the row with the id `row`."""

    row: str
    value: float

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> list[list[float]]:
        rated = super().rate(rows, description)
        return [[self.value] * len(r) if row["id"] == self.row else r for row, r in zip(rows, rated, strict=True)]


@dataclass
class Mortal(StandIn):
    """Dies by SIGKILL at the row `row`, as often as `lives` says (over all workers)."""

    row: str
    lives: int

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> list[list[float]]:
        rated = super().rate(rows, description)
        deaths = sum(self.row in shard for shard in self.shards_rated())
        if any(row["id"] == self.row for row in rows) and deaths <= self.lives:
            os.kill(os.getpid(), signal.SIGKILL)
        return rated


@dataclass
class Failing(StandIn):
    """Raises at the row `row`."""

    row: str

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> list[list[float]]:
        if any(row["id"] == self.row for row in rows):
            raise ZeroDivisionError("in the model")
        return super().rate(rows, description)


@dataclass
class Slow(StandIn):
    """Takes its time for a shard."""

    seconds: float

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> list[list[float]]:
        with self.log.with_suffix(".pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        return super().rate(rows, description)
