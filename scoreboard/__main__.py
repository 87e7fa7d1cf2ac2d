"""`python -m scoreboard tune|cell|table`: the parts of the scoreboard, each resumable; `make scoreboard` runs all."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clha_core import paths
from clha_core.cli import QUIET
from clha_core.errors import UserError
from clha_core.params import Params, load_params
from clha_core.terminal import terminal
from scoreboard.study import STUDY, Study, load_study, study_params

SCRATCH = paths.SCRATCH / "scoreboard"
EXPERIMENT = "clha-scoreboard"

app = typer.Typer(no_args_is_help=True, help=__doc__)
StudyFile = Annotated[Path, typer.Option("--study", help="What is compared.")]
Candidates = Annotated[int, typer.Option(help="Responses a prompt.")]


def _params(study: Study) -> Params:
    params = study_params(load_params(), study)
    return params.model_copy(update={"registry": params.registry.model_copy(update={"experiment": EXPERIMENT})})


@app.command()
def tune(candidates: Candidates, study: StudyFile = STUDY) -> None:
    """Pick every method's settings for so many candidates."""
    from scoreboard import tuning

    loaded = load_study(study)
    tuned = tuning.tune(loaded, _params(loaded), candidates, SCRATCH)
    for name, changes in tuning.picked(tuned).items():
        print(f"{name}: {tuning.setting_text(changes)}")


@app.command()
def cell(
    candidates: Candidates,
    noise: Annotated[float, typer.Option(help="Share of flipped labels.")],
    seed: Annotated[int, typer.Option(help="Of everything in this world.")],
    study: StudyFile = STUDY,
) -> None:
    """Train and measure all variants in one world."""
    from scoreboard import tuning
    from scoreboard.cell import World, run_cell

    loaded = load_study(study)
    params = _params(loaded)
    picked = tuning.picked(tuning.tune(loaded, params, candidates, SCRATCH))
    run_cell(loaded, params, World(noise, candidates, seed), picked, SCRATCH)


@app.command()
def table(
    study: StudyFile = STUDY, out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("docs")
) -> None:
    """Write tables and figures of the cells that are there."""
    from scoreboard.page import write

    for path in write(load_study(study), out):
        print(path)


if __name__ == "__main__":
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    try:
        app()
    except UserError as error:
        terminal(stderr=True).print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
