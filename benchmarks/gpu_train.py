"""Training on one GPU in bf16: tokens a second, model FLOPs utilisation and peak memory.

    python -m benchmarks.gpu_train

Rows, contestants and steps are those of `train_speed.py`, with models of random weights in the shapes of Qwen2.5 0.5B
and 1.5B. Tokens are true ones: every candidate with a prompt of its own, no padding. What a contestant saves by sharing
prompts therefore shows in its rate, and so does what another one wastes on padding.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated

import torch
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from transformers import LlamaForCausalLM

from benchmarks.batches import Draw, Row, draw, tokens
from benchmarks.contestant import Contestant
from benchmarks.measure import time_steps
from benchmarks.models import Shape, body_parameters, build
from benchmarks.ours import ours
from benchmarks.reference_loop import reference

GIB = 2**30
# Dense bf16 TFLOP/s of the SXM modules, from NVIDIA's data sheets.
PEAK_TFLOPS = {"A100": 312.0, "H100": 989.0, "H200": 989.0}


class Size(StrEnum):
    """Models by their parameters, embeddings included."""

    HALF = "0.5b"
    ONE_AND_A_HALF = "1.5b"


SHAPES = {
    Size.HALF: Shape(896, 24, 4864, 14, 2, 151936),
    Size.ONE_AND_A_HALF: Shape(1536, 28, 8960, 12, 2, 151936),
}


def model_flops(rows: Sequence[Row], shape: Shape, body: int) -> float:
    """FLOPs that training on `rows` needs: 6 for each parameter of the body and true token, and causal attention.

    Attention over a sequence of s tokens takes 2 products of s * s / 2 * hidden in each layer, 2 FLOPs an element, and
    twice as much again in the backward. The head is not counted.
    """
    sequences = [len(row.prompt_ids) + len(ids) for row in rows for ids in row.response_ids]
    attention = 6 * shape.layers * shape.hidden * sum(length**2 for length in sequences)
    return 6 * body * sum(map(tokens, rows)) + attention


def peak_flops(device_name: str, tflops: float | None) -> float:
    """The hardware's dense bf16 FLOPs a second.

    Raises:
        typer.BadParameter: the device is not in the table and no figure is given.
    """
    known = next((value for name, value in PEAK_TFLOPS.items() if name in device_name), None)
    if tflops is None and known is None:
        raise typer.BadParameter(f"{device_name} is not in the table: give its dense bf16 rate with --peak-tflops.")
    return 1e12 * (tflops or known or 0.0)


def makers() -> dict[str, Callable[[LlamaForCausalLM], Contestant]]:
    """Who competes, by name."""
    found: dict[str, Callable[[LlamaForCausalLM], Contestant]] = {
        "reference": reference,
        "ours, SDPA": ours,
        "ours, flex": lambda model: ours(model, attention="flex"),
    }
    if find_spec("trl"):
        from benchmarks import peers_trl

        found |= {"trl cpo": peers_trl.cpo, "trl chunked": peers_trl.chunked}
    return found


def measure(
    make: Callable[[LlamaForCausalLM], Contestant], shape: Shape, rows: Draw, rounds: int, peak: float
) -> list[str]:
    """Tokens a second, MFU in percent and peak memory in GiB of one contestant, alone on the device."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        contestant = make(build(shape, device="cuda", dtype=torch.bfloat16))
        (seconds,) = time_steps([contestant], rows, rounds).values()
    except torch.OutOfMemoryError:
        return ["out of memory", "", ""]
    everything = [row for batch in rows.shuffled for row in batch]
    total = seconds.total * len(rows.shuffled)
    flops = model_flops(everything, shape, body_parameters(contestant.model))
    return [
        f"{sum(map(tokens, everything)) / total:,.0f}",
        f"{100 * flops / total / peak:.1f}",
        f"{torch.cuda.max_memory_allocated() / GIB:.1f}",
    ]


def main(
    sizes: Annotated[list[Size] | None, typer.Option(help="Models; may be repeated. Default: both.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=32, help="Rows a step.")] = 8,
    n: Annotated[int, typer.Option(min=2, help="Candidates a row; TRL competes with two.")] = 2,
    batches: Annotated[int, typer.Option(min=1, max=50, help="Batches in a round.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Times that every batch is timed.")] = 5,
    peak_tflops: Annotated[float | None, typer.Option(help="Dense bf16 TFLOP/s; default: from the table.")] = None,
) -> None:
    """Measure and print one table for each size."""
    console = Console()
    if not torch.cuda.is_available():
        typer.echo("No CUDA device was found: this benchmark needs one; python -m benchmarks.train_speed does not.")
        raise typer.Exit(1)
    name = torch.cuda.get_device_name()
    peak = peak_flops(name, peak_tflops)
    for size in sizes or list(Size):
        shape = SHAPES[size]
        rows = draw(n=n, samples=samples, batches=batches, vocab_size=shape.vocab_size)
        table = Table(title=f"{size.value}, n = {n}, {samples} samples a step, {name}", box=SIMPLE)
        for column in ("", "tokens/s", "MFU, %", "peak, GiB"):
            table.add_column(column, justify="right" if column else "left")
        for contestant, make in makers().items():
            if n == 2 or not contestant.startswith("trl"):
                table.add_row(contestant, *measure(make, shape, rows, rounds, peak))
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
