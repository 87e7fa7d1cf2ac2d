"""Training speed and activation memory on one core: ours against the authors' way and against TRL.

    python -m benchmarks.train_speed

A step is forward, backward and optimizer (fused AdamW) over the same rows for all, in fp32 unless a setting says
otherwise. Contestants take turns in one process; see `measure.py` for what is timed and `batches.py` for the rows.
"""

from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.batches import Draw, draw
from benchmarks.contestant import Contestant
from benchmarks.measure import Difference, activation_peak, difference, time_steps
from benchmarks.models import CPU_SHAPES, TINY_SHAPE, Shape, body_parameters, build, embedding_parameters
from benchmarks.ours import ours
from benchmarks.reference_loop import reference
from benchmarks.report import cpu_name, markdown, show, versions
from benchmarks.results import LOSS_TOLERANCE, Cell, Results, Step, load


class Size(StrEnum):
    """Parameters, embeddings included, and vocabulary."""

    SMALL_8K = "7m-8k"
    SMALL_32K = "7m-32k"
    LARGE_8K = "34m-8k"
    LARGE_32K = "34m-32k"


class Setting(StrEnum):
    """Candidates a row and rows a step; bf16 is n2-b4 under autocast."""

    PAIRS = "n2-b4"
    PAIRS_OF_TWO = "n2-b2"
    TRIPLES = "n3-b4"
    BF16 = "bf16"


CANDIDATES_AND_SAMPLES = {
    Setting.PAIRS: (2, 4),
    Setting.PAIRS_OF_TWO: (2, 2),
    Setting.TRIPLES: (3, 4),
    Setting.BF16: (2, 4),
}
# Every cell takes minutes: what varies little over the sizes is measured at the smallest and the largest.
ENDS = (Size.SMALL_8K, Size.LARGE_32K)
SIZES_OF = {Setting.PAIRS: tuple(Size), Setting.PAIRS_OF_TWO: tuple(Size), Setting.TRIPLES: ENDS, Setting.BF16: ENDS}


def contestants(setting: Setting, shape: Shape) -> list[Contestant]:
    """Who competes under a setting, each with a model of its own and the same weights; the reference is first."""
    autocast = setting is Setting.BF16
    found = [reference(build(shape), autocast=autocast), ours(build(shape), autocast=autocast)]
    if setting is Setting.BF16:
        found.append(ours(build(shape), name="ours fp32"))
    if setting is Setting.PAIRS and find_spec("trl"):
        from benchmarks import peers_trl

        found += [peers_trl.cpo(build(shape)), peers_trl.chunked(build(shape))]
    return found


def agreement(competing: Sequence[Contestant], rows: Draw) -> dict[str, Difference]:
    """How far every contestant that trains CLHA's loss is from the reference, on the first batch.

    Raises:
        RuntimeError: further than `LOSS_TOLERANCE`; times of different computations say nothing.
    """
    first, *others = competing
    found = {}
    for contestant in others:
        if contestant.name == "trl cpo":
            continue
        found[contestant.name] = apart = difference(contestant, first, rows.shuffled[0])
        if not apart.loss <= LOSS_TOLERANCE["bf16" if first.autocast else "fp32"]:
            raise RuntimeError(f"{contestant.name}'s loss is {apart.loss:.1e} (relative) away from the reference's.")
    return found


def measure(size: str, shape: Shape, setting: Setting, *, batches: int, rounds: int) -> Cell:
    """One cell: agreement, then memory, then time, each in runs of its own."""
    n, samples = CANDIDATES_AND_SAMPLES[setting]
    rows = draw(n=n, samples=samples, batches=batches, vocab_size=shape.vocab_size)
    competing = contestants(setting, shape)
    apart = agreement(competing, rows)
    peaks = {contestant.name: activation_peak(contestant, rows) for contestant in competing}
    seconds = time_steps(competing, rows, rounds)
    model = competing[0].model
    return Cell(
        size=size,
        setting=setting,
        n=n,
        samples=samples,
        batches=batches,
        rounds=rounds,
        padding=rows.padding,
        body_parameters=body_parameters(model),
        embedding_parameters=embedding_parameters(model),
        steps={
            name: Step(
                seconds=taken.total,
                forward_backward_seconds=taken.forward_backward,
                optimizer_seconds=taken.optimizer,
                activation_bytes=peaks[name],
                loss_difference=apart[name].loss if name in apart else None,
                gradient_difference=apart[name].gradient if name in apart else None,
            )
            for name, taken in seconds.items()
        },
    )


def main(
    sizes: Annotated[
        list[Size] | None, typer.Option(help="Models; may be repeated. Default: each setting's own.")
    ] = None,
    settings: Annotated[list[Setting] | None, typer.Option(help="Settings; may be repeated. Default: all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that every batch is timed.")] = 3,
    batches: Annotated[int, typer.Option(min=1, max=50, help="Batches in a round.")] = 4,
    quick: Annotated[bool, typer.Option(help="One tiny model, one batch, one round: does it run at all?")] = False,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here, after every cell.")] = None,
    resume: Annotated[bool, typer.Option(help="Do not measure again what --json has from this machine.")] = False,
) -> None:
    """Measure, print the tables, and hold them against the goals."""
    torch.set_num_threads(1)
    console = Console()
    packages = ["torch", "transformers", *(["trl"] if find_spec("trl") else [])]
    machine = {"CPU": f"{cpu_name()}, one core", **versions(*packages)}
    results = load(json_file, machine) if resume and json_file else Results(machine=machine)
    if not find_spec("trl"):
        console.print("TRL is not installed, so it does not compete: pip install trl==1.16.0")
    done = {(cell.size, cell.setting) for cell in results.cells}
    for setting in settings or list(Setting):
        shapes = {size.value: CPU_SHAPES[size] for size in sizes or SIZES_OF[setting]}
        if quick:
            shapes = {"tiny": TINY_SHAPE}
        for size, shape in shapes.items():
            if (size, setting) in done:
                continue
            console.print(f"measuring {size} {setting.value}")
            cell = measure(size, shape, setting, batches=1 if quick else batches, rounds=1 if quick else rounds)
            results.cells.append(cell)
            if json_file:
                json_file.write_text(results.model_dump_json(indent=2) + "\n", encoding="utf-8")
    show(results, console)
    if markdown_file:
        markdown_file.write_text(markdown(results), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
