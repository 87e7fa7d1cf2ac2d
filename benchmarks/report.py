"""The tables, on the terminal and as Markdown."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.results import Cell, Results, verdicts

CONTESTANTS = ("reference", "trl cpo", "trl chunked", "ours fp32", "ours")
MIB = 2**20


@dataclass(frozen=True)
class Block:
    """A table; its first column is text, the others are short."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def cpu_name() -> str:
    """The processor as the kernel names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    values: dict[str, str] = {}
    for name, _, value in (line.partition(":") for line in lines):
        values.setdefault(name.strip(), value.strip())
    if "model name" not in values:
        return platform.processor() or platform.machine()
    return f"{values['model name']} (family {values['cpu family']}, model {values['model']})"


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, Python's included."""
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def blocks(results: Results) -> list[Block]:
    """Everything worth a table."""
    return [make(results.cells) for make in (_models, _steps, _speed, _memory, _goals)]


def show(results: Results, console: Console) -> None:
    """Print everything that training has a table for."""
    show_blocks(blocks(results), results.machine, console)


def show_blocks(tables: Sequence[Block], machine: Mapping[str, str], console: Console) -> None:
    """Print tables, and below them where they were measured."""
    for block in tables:
        table = Table(title=block.title, title_justify="left", box=SIMPLE, pad_edge=False)
        for index, name in enumerate(block.header):
            table.add_column(name, justify="right" if index else "left", overflow="fold")
        for row in block.rows:
            table.add_row(*row)
        console.print(table)
    console.print(machine_line(machine), highlight=False)


def markdown(results: Results) -> str:
    """Everything that training has a table for, as Markdown."""
    return markdown_blocks(blocks(results), results.machine)


def markdown_blocks(tables: Sequence[Block], machine: Mapping[str, str]) -> str:
    """Tables as Markdown, below where they were measured."""
    parts = [machine_line(machine)]
    for block in tables:
        lines = [block.header, [":--", *["--:"] * (len(block.header) - 1)], *block.rows]
        parts.append(f"**{block.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def machine_line(machine: Mapping[str, str]) -> str:
    """Hardware and versions in a sentence."""
    return ", ".join(f"{name} {value}" for name, value in machine.items()) + "."


def _label(cell: Cell) -> list[str]:
    return [cell.size, cell.setting]


def _models(cells: Sequence[Cell]) -> Block:
    sizes = {cell.size: [f"{cell.body_parameters:,}", f"{cell.embedding_parameters:,}"] for cell in cells}
    header = ["model", "body", "tied embeddings"]
    return Block("Models: parameters", header, [[size, *counts] for size, counts in sizes.items()])


def _steps(cells: Sequence[Cell]) -> Block:
    rows = []
    for cell in cells:
        steps = [cell.steps.get(name) for name in CONTESTANTS]
        seconds = [f"{step.seconds:.3g}" if step else "" for step in steps]
        optimizer = f"{cell.steps['ours'].optimizer_seconds:.2g}"
        rows.append([*_label(cell), *seconds, optimizer])
    return Block("Seconds a step", ["model", "step", *CONTESTANTS, "adamw"], rows)


def _speed(cells: Sequence[Cell]) -> Block:
    others = [name for name in CONTESTANTS if name != "ours"]
    rows = []
    for cell in cells:
        ratios = [f"{cell.speedup(name):.2f}x" if name in cell.steps else "" for name in others]
        rows.append([*_label(cell), f"{cell.padding:.2f}", *ratios])
    return Block("Speed of ours over", ["model", "step", "padded/real", *others], rows)


def _memory(cells: Sequence[Cell]) -> Block:
    rows = []
    for cell in cells:
        steps = [cell.steps.get(name) for name in CONTESTANTS]
        peaks = [f"{step.activation_bytes / MIB:,.0f}" if step else "" for step in steps]
        rows.append([*_label(cell), *peaks, f"{cell.memory_share('reference'):.3f}"])
    return Block("Peak of activations, MiB", ["model", "step", *CONTESTANTS, "share"], rows)


def _goals(cells: Sequence[Cell]) -> Block:
    rows = []
    for verdict in verdicts(cells):
        goal = verdict.goal
        unit, sign, digits = ("x", ">=", 2) if goal.quantity == "speed" else ("", "<=", 3)
        numbers = [f"{value:.{digits}f}{unit}" for value in (verdict.mean, verdict.worst)]
        result = "met" if verdict.met else "missed"
        rows.append(
            [goal.text, f"{sign} {goal.bound:g}{unit}", goal.judged, *numbers, str(len(verdict.values)), result]
        )
    return Block("Goals: ours against", ["goal", "bound", "of", "mean", "worst", "sizes", "verdict"], rows)
