"""Speed and memory of reward scoring on one core: ours against padded batches in file order and HF's pipeline.

    python -m benchmarks.rescore_speed

All score the same rows in fp32, from texts to floats, taking turns in one process; times are CPU seconds of that
process. Scores have to be equal, or nothing is timed.
"""

import statistics
from collections.abc import Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import BaseModel
from rich.console import Console

from benchmarks.batches import Row, draw
from benchmarks.measure import cpu_peak, now
from benchmarks.models import CPU_SHAPES, TINY_SHAPE, Shape
from benchmarks.report import MIB, Block, cpu_name, markdown_blocks, show_blocks, versions
from benchmarks.scorers import ROWS_PER_BATCH, Scorer, Texts, scorers, texts_of

TOLERANCE = 1e-5
SIZES = ("7m-8k", "34m-8k")
# Ours against: bound, by n. No number was set for n = 3, only that it is more.
GOALS = {"file order": 5.5, "pipeline": 1.7}
FLAT = 1.2


class Candidates(IntEnum):
    """Candidates a row."""

    PAIRS = 2
    TRIPLES = 3


class Cell(BaseModel):
    """One size of model and number of candidates.

    Attributes:
        seconds: for all rows, median over the rounds, by scorer.
        peak_bytes: most memory alive at once beyond the model, by scorer.
        doubled_peak_bytes: of ours, for the same rows twice.
        difference: largest absolute difference of a score from the pipeline's, by scorer.
    """

    size: str
    n: int
    rows: int
    rounds: int
    seconds: dict[str, float]
    peak_bytes: dict[str, int]
    doubled_peak_bytes: int
    difference: dict[str, float]

    def speedup(self, over: str) -> float:
        """Seconds of a scorer by those of ours."""
        return self.seconds[over] / self.seconds["ours"]


def agreement(competing: Sequence[Scorer], texts: Texts) -> dict[str, float]:
    """How far every scorer is from the pipeline.

    Raises:
        RuntimeError: further than `TOLERANCE`; times of different computations say nothing.
    """
    scores = {scorer.name: torch.tensor(scorer.score(texts)) for scorer in competing}
    apart = {name: (found - scores["pipeline"]).abs().max().item() for name, found in scores.items()}
    if wrong := {name: far for name, far in apart.items() if not far <= TOLERANCE}:
        raise RuntimeError(f"scores differ from the pipeline's: {wrong}")
    return apart


def measure(size: str, shape: Shape, n: int, *, rows: Sequence[Row], rounds: int) -> Cell:
    """One cell: agreement, then memory, then time."""
    texts = texts_of(rows)
    competing = scorers(shape)
    seconds: dict[str, list[float]] = {scorer.name: [] for scorer in competing}
    with torch.inference_mode():
        apart = agreement(competing, texts)
        peaks = {scorer.name: cpu_peak(partial(scorer.score, texts)) for scorer in competing}
        doubled = cpu_peak(lambda: competing[-1].score([*texts, *texts]))
        for _ in range(rounds):
            for scorer in competing:
                start = now(torch.device("cpu"))
                scorer.score(texts)
                seconds[scorer.name].append(now(torch.device("cpu")) - start)
    return Cell(
        size=size,
        n=n,
        rows=len(rows),
        rounds=rounds,
        seconds={name: statistics.median(taken) for name, taken in seconds.items()},
        peak_bytes=peaks,
        doubled_peak_bytes=doubled,
        difference=apart,
    )


def blocks(cells: Sequence[Cell]) -> list[Block]:
    """The tables."""
    names = list(cells[0].seconds)
    label = ["model", "n"]
    per_second = [
        [c.size, str(c.n), *(f"{c.rows / c.seconds[name]:.1f}" for name in names), f"{max(c.difference.values()):.0e}"]
        for c in cells
    ]
    ratios = [[c.size, str(c.n), *(f"{c.speedup(name):.2f}x" for name in names[:-1])] for c in cells]
    memory = [
        [c.size, str(c.n), *(f"{c.peak_bytes[name] / MIB:.0f}" for name in names), f"{c.doubled_peak_bytes / MIB:.0f}"]
        for c in cells
    ]
    return [
        Block("Rows scored a second", [*label, *names, "scores differ by"], per_second),
        Block("Speed of ours over", [*label, *names[:-1]], ratios),
        Block("Peak of activations, MiB", [*label, *names, "ours, rows twice"], memory),
        Block("Goals", ["goal", "model", "bound", "measured", "verdict"], list(_verdicts(cells))),
    ]


def _verdicts(cells: Sequence[Cell]) -> list[list[str]]:
    found = []
    pairs = {cell.size: cell for cell in cells if cell.n == Candidates.PAIRS}
    triples = {cell.size: cell for cell in cells if cell.n == Candidates.TRIPLES}
    for over, bound in GOALS.items():
        for size, cell in pairs.items():
            found.append(_verdict(f"{over}, n = 2", size, f">= {bound:g}x", cell.speedup(over), bound))
        for size in pairs.keys() & triples.keys():
            found.append(
                _verdict(
                    f"{over}, n = 3", size, "more than n = 2", triples[size].speedup(over), pairs[size].speedup(over)
                )
            )
    for cell in cells:
        growth = cell.doubled_peak_bytes / cell.peak_bytes["ours"]
        met = "met" if growth <= FLAT else "missed"
        found.append([f"memory, rows twice, n = {cell.n}", cell.size, f"<= {FLAT:g}x", f"{growth:.2f}x", met])
    return found


def _verdict(goal: str, size: str, bound_text: str, value: float, bound: float) -> list[str]:
    return [goal, size, bound_text, f"{value:.2f}x", "met" if value >= bound else "missed"]


def main(
    sizes: Annotated[
        list[str] | None, typer.Option(help=f"Models of {', '.join(CPU_SHAPES)}; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that all rows are scored.")] = 5,
    batches: Annotated[int, typer.Option(min=1, max=50, help=f"Times {ROWS_PER_BATCH} rows.")] = 4,
    quick: Annotated[bool, typer.Option(help="One tiny model, one batch, one round: does it run at all?")] = False,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables here.")] = None,
) -> None:
    """Measure, print the tables, and hold them against the goals."""
    torch.set_num_threads(1)
    console = Console()
    machine = {"CPU": f"{cpu_name()}, one core", **versions("torch", "transformers")}
    shapes = {"tiny": TINY_SHAPE} if quick else {size: CPU_SHAPES[size] for size in sizes or SIZES}
    cells = []
    for size, shape in shapes.items():
        for n in Candidates:
            console.print(f"measuring {size} n = {n.value}")
            drawn = draw(n=n, samples=ROWS_PER_BATCH, batches=1 if quick else batches, vocab_size=shape.vocab_size)
            rows = [row for batch in drawn.shuffled for row in batch]
            cells.append(measure(size, shape, n, rows=rows, rounds=1 if quick else rounds))
    tables = blocks(cells)
    show_blocks(tables, machine, console)
    if markdown_file:
        markdown_file.write_text(markdown_blocks(tables, machine), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
