"""What was measured, as it is kept in JSON, and the goals that it is held against."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

# Losses are compared relative to the reference's (to 1 where that is smaller).
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}


class Step(BaseModel):
    """One contestant's step: seconds as `measure.StepSeconds`, bytes as `measure.activation_peak`.

    Attributes:
        loss_difference, gradient_difference: from the reference's, relative; None where it trains another loss.
    """

    seconds: float
    forward_backward_seconds: float
    optimizer_seconds: float
    activation_bytes: int
    loss_difference: float | None = None
    gradient_difference: float | None = None


class Cell(BaseModel):
    """One size of model under one setting; `padding` is padded by real tokens in the reference's batches."""

    size: str
    setting: str
    n: int
    samples: int
    batches: int
    rounds: int
    padding: float
    body_parameters: int
    embedding_parameters: int
    steps: dict[str, Step]

    def speedup(self, over: str) -> float:
        """Seconds of a step of `over` by those of ours."""
        return self.steps[over].seconds / self.steps["ours"].seconds

    def memory_share(self, of: str) -> float:
        """Our activation peak by that of `of`."""
        return self.steps["ours"].activation_bytes / self.steps[of].activation_bytes


class Results(BaseModel):
    """Everything of one run; `machine` names hardware and versions."""

    machine: dict[str, str]
    cells: list[Cell] = []


@dataclass(frozen=True)
class Goal:
    """What ours is to reach.

    Attributes:
        over: the contestant that ours is measured against.
        bound: at least this speed-up, or at most this share of the activation peak.
        judged: whether the mean over the sizes has to reach the bound, or every size.
    """

    text: str
    setting: str
    over: str
    bound: float
    quantity: Literal["speed", "memory"] = "speed"
    judged: Literal["mean", "worst"] = "mean"


@dataclass(frozen=True)
class Verdict:
    """A goal beside what was measured; `values` by size of model."""

    goal: Goal
    values: dict[str, float]

    @property
    def mean(self) -> float:
        """Over the sizes."""
        return statistics.mean(self.values.values())

    @property
    def worst(self) -> float:
        """The size that is furthest from the goal."""
        return (min if self.goal.quantity == "speed" else max)(self.values.values())

    @property
    def met(self) -> bool:
        """Whether the judged value reaches the bound."""
        value = self.mean if self.goal.judged == "mean" else self.worst
        return value >= self.goal.bound if self.goal.quantity == "speed" else value <= self.goal.bound


GOALS = [
    Goal("reference", "n2-b4", "reference", 5.0),
    Goal("reference", "n2-b4", "reference", 3.3, judged="worst"),
    Goal("reference, 2 samples", "n2-b2", "reference", 2.7),
    Goal("reference, n = 3", "n3-b4", "reference", 5.0),
    Goal("TRL CPO/SimPO", "n2-b4", "trl cpo", 3.5),
    Goal("TRL's best path", "n2-b4", "trl chunked", 2.2),
    Goal("reference, activations", "n2-b4", "reference", 0.25, "memory", "worst"),
    Goal("own fp32, by bf16", "bf16", "ours fp32", 2.0),
]


def verdicts(cells: Sequence[Cell]) -> list[Verdict]:
    """The goals of which something was measured."""
    found = []
    for goal in GOALS:
        values = {
            cell.size: cell.speedup(goal.over) if goal.quantity == "speed" else cell.memory_share(goal.over)
            for cell in cells
            if cell.setting == goal.setting and goal.over in cell.steps
        }
        if values:
            found.append(Verdict(goal, values))
    return found


def load(file: Path, machine: dict[str, str]) -> Results:
    """Results that an earlier run left in `file`, or none: those of another machine or other versions do not count."""
    if file.is_file():
        earlier = Results.model_validate_json(file.read_text(encoding="utf-8"))
        if earlier.machine == machine:
            return earlier
    return Results(machine=machine)
