"""The scoreboard as a flow: tuning, then every cell as a mapped task, each a process of its own; then the tables.

`make scoreboard` runs it. It can be stopped and started again: what has a result is not computed twice.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from flows.stage import StageFailed, cause_of, run_guarded
from flows.workspace import HOME
from scoreboard.cell import World, worlds
from scoreboard.study import STUDY, load_study


def _part(arguments: list[str], study: Path) -> None:
    logger = get_run_logger()
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        logger.info(line)

    command = [sys.executable, "-m", "scoreboard", *arguments, f"--study={study}"]
    status = run_guarded(command, HOME, os.environ, listen)
    if status != 0:
        raise StageFailed(f"{arguments[0]}: {cause_of(lines) or f'exit status {status}'}")


@task(task_run_name="tune n={candidates}", cache_policy=NO_CACHE, persist_result=False)
def tune(candidates: int, study: Path) -> None:
    """Settings of every method for so many candidates."""
    _part(["tune", f"--candidates={candidates}"], study)


@task(task_run_name="{world.name}", cache_policy=NO_CACHE, persist_result=False)
def cell(world: World, study: Path) -> None:
    """All variants in one world."""
    _part(
        ["cell", f"--candidates={world.candidates}", f"--noise={world.noise}", f"--seed={world.seed}"],
        study,
    )


@task(cache_policy=NO_CACHE, persist_result=False)
def tables(study: Path, out: Path) -> None:
    """Tables and figures of all cells."""
    _part(["table", f"--out={out}"], study)


@flow(name="clha-scoreboard", persist_result=False)
def scoreboard(study: Path, out: Path) -> None:
    """All methods in all worlds of a study.

    Args:
        study: what is compared.
        out: folder of the tables and figures.
    """
    loaded = load_study(study)
    tune.map(loaded.candidates, unmapped(study)).result()
    cell.map(worlds(loaded), unmapped(study)).result()
    tables(study, out)


def main(
    study: Annotated[Path, typer.Option(help="What is compared.")] = STUDY,
    out: Annotated[Path, typer.Option(help="Folder of tables and figures.")] = HOME / "docs",
    workers: Annotated[int, typer.Option(help="Worlds at once; each uses runtime.threads threads.")] = 1,
) -> None:
    """Run the scoreboard, or go on with it."""
    runner: Any = ThreadPoolTaskRunner(max_workers=workers)  # Prefect's types of runners do not fit each other
    scoreboard.with_options(task_runner=runner)(study.resolve(), out.resolve())


if __name__ == "__main__":
    typer.run(main)
