"""Speed of answering prompts on one core: ours against a plain `generate` in file order, and transformers' other ways.

    python -m benchmarks.generation_speed

All answer the same prompts greedily in fp32, taking turns in one process; times are CPU seconds of that process. The
answers have to be the same texts, or there are no figures. Tokens are those of the answers, not what was computed.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import BaseModel
from rich.console import Console

from benchmarks.generators import BATCH_SIZE, MAX_NEW_TOKENS, generators, prompts_of_hh
from benchmarks.measure import now
from benchmarks.models import CPU_SHAPES, TINY_SHAPE, Shape
from benchmarks.report import Block, cpu_name, markdown_blocks, show_blocks, versions
from clha_core.evaluation.generation import Generation

SIZES = ("7m-8k", "34m-8k")
GOAL = 2.0  # over plain generate, every size
PLAIN = "plain generate"


class Cell(BaseModel):
    """One size of model.

    Attributes:
        prompts, tokens: how many, tokens of the answers.
        mean_prompt, mean_answer, unfinished: tokens, tokens, share of the answers that the limit cut off.
        seconds: for all prompts, median over the rounds, by generator.
    """

    size: str
    rounds: int
    prompts: int
    tokens: int
    mean_prompt: float
    mean_answer: float
    unfinished: float
    seconds: dict[str, float]

    def speedup(self, over: str) -> float:
        """Seconds of a generator by those of ours."""
        return self.seconds[over] / self.seconds["ours"]


def same_answers(answers: dict[str, list[Generation]]) -> list[Generation]:
    """The answers that all generators gave.

    Raises:
        RuntimeError: they differ; times of different computations say nothing.
    """
    expected = answers[PLAIN]
    for name, found in answers.items():
        if wrong := [index for index, answer in enumerate(found) if answer != expected[index]]:
            raise RuntimeError(f"{name} gives other answers than {PLAIN} to {len(wrong)} prompts: {wrong[:5]}")
    return expected


def measure(size: str, shape: Shape, *, batches: int, rounds: int, tokens: int = MAX_NEW_TOKENS) -> Cell:
    """One cell: every generator answers all prompts, in turn, `rounds` times."""
    prompts = prompts_of_hh(batches * BATCH_SIZE, shape.vocab_size)
    competing = generators(shape, tokens)
    seconds: dict[str, list[float]] = {generator.name: [] for generator in competing}
    answers: dict[str, list[Generation]] = {}
    for _ in range(rounds):
        for generator in competing:
            start = now(torch.device("cpu"))
            answers[generator.name] = generator.answer(prompts)
            seconds[generator.name].append(now(torch.device("cpu")) - start)
        answered = same_answers(answers)
    return Cell(
        size=size,
        rounds=rounds,
        prompts=len(prompts),
        tokens=sum(answer.tokens for answer in answered),
        mean_prompt=statistics.mean(map(len, prompts)),
        mean_answer=statistics.mean(answer.tokens for answer in answered),
        unfinished=statistics.mean(not answer.finished for answer in answered),
        seconds={name: statistics.median(taken) for name, taken in seconds.items()},
    )


def blocks(cells: Sequence[Cell]) -> list[Block]:
    """The tables."""
    names = list(cells[0].seconds)
    answered = [
        [c.size, str(c.prompts), f"{c.mean_prompt:.0f}", f"{c.mean_answer:.0f}", f"{c.unfinished:.0%}"] for c in cells
    ]
    per_second = [[c.size, *(f"{c.tokens / c.seconds[name]:.0f}" for name in names)] for c in cells]
    ratios = [[c.size, *(f"{c.speedup(name):.2f}x" for name in names[:-1])] for c in cells]
    goals = [
        [c.size, f">= {GOAL:g}x", f"{c.speedup(PLAIN):.2f}x", "met" if c.speedup(PLAIN) >= GOAL else "missed"]
        for c in cells
    ]
    return [
        Block("Prompts and answers", ["model", "prompts", "tokens a prompt", "an answer", "unfinished"], answered),
        Block("Tokens of answers a second", ["model", *names], per_second),
        Block("Speed of ours over", ["model", *names[:-1]], ratios),
        Block(f"Goal over {PLAIN}", ["model", "bound", "measured", "verdict"], goals),
    ]


def main(
    sizes: Annotated[
        list[str] | None, typer.Option(help=f"Models of {', '.join(CPU_SHAPES)}; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that all prompts are answered.")] = 3,
    batches: Annotated[int, typer.Option(min=1, max=50, help=f"Times {BATCH_SIZE} prompts.")] = 4,
    quick: Annotated[bool, typer.Option(help="One tiny model, two batches, one round: does it run at all?")] = False,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables here.")] = None,
) -> None:
    """Measure, print the tables, and hold them against the goal."""
    torch.set_num_threads(1)
    console = Console()
    machine = {"CPU": f"{cpu_name()}, one core", **versions("torch", "transformers")}
    shapes = {"tiny": TINY_SHAPE} if quick else {size: CPU_SHAPES[size] for size in sizes or SIZES}
    cells = []
    for size, shape in shapes.items():
        console.print(f"measuring {size}")
        cells.append(measure(size, shape, batches=2 if quick else batches, rounds=1 if quick else rounds))
    tables = blocks(cells)
    show_blocks(tables, machine, console)
    if markdown_file:
        markdown_file.write_text(markdown_blocks(tables, machine), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
