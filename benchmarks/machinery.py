"""What DVC, Prefect and the command line cost beside the steps: `make bench-machinery`, after `make pipeline`.

Compared commands run in turns, and count by the CPU seconds of all their processes: on a machine that is busy with
something else these stay what they are. Flow runs are measured by the clock (flow_runs.py); how much slower that ran
than the processor meanwhile is said beside it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.flow_runs import cancelled_run, servers, unchanged_run
from clha_core.errors import UserError
from flows.stage import STAGES

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 7
FLOW_ROUNDS = 5
DVC = [sys.executable, "-m", "dvc"]
HELP = [sys.executable, "-m", "clha_core", "--help"]
# What the command line is written with: no help can be had for less.
HELP_FLOOR = [sys.executable, "-c", "import typer, rich.console, pydantic, yaml"]
ONE_STAGE = STAGES[0]


@dataclass(frozen=True)
class Cost:
    """Seconds of one command: on the clock, and of the processor over all its processes."""

    wall: float
    cpu: float


def cost_of(command: list[str], folder: Path) -> Cost:
    """Run a command once.

    Raises:
        UserError: it failed.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise UserError(f"`{' '.join(command)}` failed in {folder}.")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime)


def in_turns(commands: Mapping[str, tuple[list[str], Path]], rounds: int = ROUNDS) -> dict[str, Cost]:
    """The median cost of each command; the first round only warms the caches."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, (command, folder) in commands.items():
            costs[name].append(cost_of(command, folder))
    return {
        name: Cost(statistics.median(one.wall for one in found[1:]), statistics.median(one.cpu for one in found[1:]))
        for name, found in costs.items()
    }


def make_bare_project(folder: Path, stages: int) -> Path:
    """A DVC project of so many stages, each a line of shell that reads the output of the one before; all have run."""
    folder.mkdir()
    graph: dict[str, Any] = {}
    for number in range(stages):
        deps = {"deps": [f"out{number - 1}"]} if number else {}
        graph[f"stage{number}"] = {"cmd": f"echo {number} > out{number}", **deps, "outs": [f"out{number}"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": graph}), encoding="utf-8")
    for command in (["git", "init", "--quiet"], [*DVC, "init", "--quiet"], [*DVC, "repro", "--quiet"]):
        cost_of(command, folder)
    return folder


def require_finished() -> None:
    """Raises:
    UserError: something would still run here.
    """
    dry = subprocess.run([*DVC, "repro", "--dry"], cwd=ROOT, capture_output=True, text=True, check=False)
    if dry.returncode != 0 or "Running stage" in dry.stdout:
        raise UserError("`dvc repro` has something to do here: run `make pipeline` first.")


def main() -> None:
    """Measure and print a Markdown table."""
    require_finished()
    with tempfile.TemporaryDirectory() as scratch:
        bare = make_bare_project(Path(scratch) / "bare", len(STAGES))
        repro = [*DVC, "repro"]
        costs = in_turns(
            {
                "ours": (repro, ROOT),
                "one": ([*repro, "--single-item", ONE_STAGE], ROOT),
                "bare": (repro, bare),
                "help": (HELP, ROOT),
                "floor": (HELP_FLOOR, ROOT),
            }
        )
    with servers(ROOT) as client:
        unchanged_run(client)  # may find an empty cache of its own
        runs = [unchanged_run(client) for _ in range(FLOW_ROUNDS)]
        run = sorted(runs, key=lambda each: each.beside)[FLOW_ROUNDS // 2]
        cancel = cancelled_run(client, ROOT)
    slowness = costs["help"].wall / costs["help"].cpu
    ours, one, bare_cost, help_cost, floor = (costs[name] for name in ("ours", "one", "bare", "help", "floor"))
    rows = [
        ("No-op `dvc repro`", f"{ours.cpu:.2f} s", f"{bare_cost.cpu:.2f} s in a bare project of {len(STAGES)} stages",
         f"{ours.cpu / bare_cost.cpu:.2f}x"),
        ("`clha --help`", f"{help_cost.cpu:.2f} s", f"{floor.cpu:.2f} s to import what it is written with",
         f"{help_cost.cpu / floor.cpu:.2f}x"),
        ("A flow run beside its steps", f"{run.beside:.1f} s on the clock",
         f"{run.steps:.1f} s for its steps: all stages cached, and the registry", f"{run.beside / run.steps:.2f}x"),
        ("DVC's start, once more for every stage that runs", f"{one.cpu:.2f} s", "", ""),
        ("A flow run before its start", f"{run.waited:.1f} s on the clock", "", ""),
        ("Cancel, until no process of a training run is left", f"{cancel:.1f} s on the clock", "", ""),
    ]  # fmt: skip
    print("| | cost | against | ratio |\n|---|--:|---|--:|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(f"\nCPU seconds where not said. The clock ran {slowness:.1f} times as long as the processor.")


if __name__ == "__main__":
    main()
