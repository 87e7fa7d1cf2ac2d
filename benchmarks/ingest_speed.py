"""Seconds and memory of what reads all rows, at HH's full size: ingest, validate and the noise report.

Ingest is set beside the reference's line loop.

    python -m benchmarks.ingest_speed compare

Every measurement is a process of its own, start and imports included: that is what `dvc repro` waits for. The sizes and
contestants take turns, and of the rounds the fastest counts: the rest is what other processes on the machine took.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.hh_rows import HH_TRAIN_ROWS, write_hh
from clha_core import paths

ROOT = Path(__file__).resolve().parents[1]
TRAIN_ROWS = (2_000, 20_000, HH_TRAIN_ROWS)
GOAL_SECONDS = 60
RESCORED = paths.RESCORED / "train.parquet"


class Contestant(StrEnum):
    """What is measured; validate looks at what ingest wrote, the noise report at the same with made-up rewards."""

    LOOP = "line loop"
    INGEST = "ingest"
    VALIDATE = "validate"
    NOISE = "noise report"


@dataclass(frozen=True)
class Measurement:
    """One process.

    Attributes:
        seconds: from its start to its end.
        cpu_seconds: of all its threads.
        peak_mib: the most physical memory it held at a time.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float


def measure(contestant: Contestant, source: Path, work: Path) -> Measurement:
    """Run a contestant over the rows below `source` in a process of its own; it writes to `work`.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    command = [sys.executable, "-m", "benchmarks.ingest_speed", "one", contestant, str(source), str(work)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{contestant} failed: {done.stderr[-2000:]}")
    used = json.loads(done.stdout.splitlines()[-1])
    return Measurement(seconds, used["cpu_seconds"], used["peak_mib"])


def add_rewards(work: Path) -> None:
    """Give the ingested train rows below `work` rewards, where they have none."""
    from benchmarks.rescored_rows import write_rescored

    if not (work / RESCORED).exists():
        write_rescored(work / paths.INGESTED / "train.parquet", work / RESCORED)


def run(contestant: Contestant, source: Path, work: Path) -> None:
    """Run a contestant in this process; only what it needs is imported."""
    if contestant is Contestant.LOOP:
        from benchmarks.line_loop import line_loop

        line_loop(source, work)
        return
    if contestant is Contestant.NOISE:
        from clha_core.rescoring.noise.report import report_noise

        report_noise(work / RESCORED, work / paths.RESCORE_REPORT)
        return
    from clha_core.params import parse_params

    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["data"] |= {"source": "local", "path": str(source), "subsets": []}
    params = parse_params(values, "params.yaml")
    if contestant is Contestant.INGEST:
        from clha_core.stages import ingest

        ingest.run(params, work)
    else:
        from clha_core.stages import validate

        validate.run(params, work)


def peak_mib() -> float:
    """Peak physical memory of this process since it was started (not of the one that it was forked from)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


app = typer.Typer(add_completion=False)


@app.command()
def one(contestant: Contestant, source: Path, work: Path) -> None:
    """Run one contestant here and print what it used, as JSON."""
    run(contestant, source, work)
    typer.echo(json.dumps({"cpu_seconds": time.process_time(), "peak_mib": peak_mib()}))


@app.command()
def compare(
    rounds: Annotated[int, typer.Option(help="The fastest of so many counts.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Where the figures go as JSON.")] = None,
) -> None:
    """Measure all contestants at all sizes."""
    measured: dict[tuple[int, Contestant], list[Measurement]] = {}
    rows_of = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for size in TRAIN_ROWS:
            rows_of[size] = write_hh(folder / f"rows-{size}", size)
        for _ in range(rounds):
            for size in TRAIN_ROWS:
                for contestant in Contestant:
                    if contestant is Contestant.NOISE:
                        add_rewards(folder / f"work-{size}")
                    # The line loop has a folder of its own, as its output is not ours.
                    work = folder / ("loop" if contestant is Contestant.LOOP else f"work-{size}")
                    found = measure(contestant, folder / f"rows-{size}", work)
                    measured.setdefault((size, contestant), []).append(found)
    best = {key: min(found, key=lambda one: one.seconds) for key, found in measured.items()}
    table = Table("Rows", "", "Seconds", "CPU seconds", "Rows a second", "Peak, MiB")
    for (size, contestant), one in best.items():
        speed = rows_of[size] / one.seconds
        cells = (f"{one.seconds:.1f}", f"{one.cpu_seconds:.1f}", f"{speed:,.0f}", f"{one.peak_mib:.0f}")
        table.add_row(f"{rows_of[size]:,}", contestant, *cells)
    console = Console()
    console.print(table)
    ours = sum(best[HH_TRAIN_ROWS, name].seconds for name in (Contestant.INGEST, Contestant.VALIDATE))
    verdict = "met" if ours <= GOAL_SECONDS else "missed"
    console.print(f"HH's full size, ingest and validate: {ours:.1f} s (goal: {GOAL_SECONDS} s, {verdict}).")
    if out is not None:
        cells_of = [{"rows": rows_of[size], "name": name, **asdict(one)} for (size, name), one in best.items()]
        out.write_text(json.dumps(cells_of, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
