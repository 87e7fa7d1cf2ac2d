"""`clha assess`: people say which of two systems answers better, without knowing which is which."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clha_core import paths
from clha_core.params import load_params
from clha_core.terminal import say, terminal

app = typer.Typer(
    name="assess", help="Blinded assessment by people: export pairs of answers, import votes.", no_args_is_help=True
)
console = terminal()


class Format(StrEnum):
    """What raters vote with."""

    html = "html"
    csv = "csv"
    label_studio = "label-studio"


@app.command("export")
def export(
    system: Annotated[str, typer.Option(help="Wins of this system are counted.")] = "aligned",
    against: Annotated[str, typer.Option(help="The other system; human names the human-chosen answers.")] = "sft",
    count: Annotated[int, typer.Option(min=1, help="Pairs to draw from the test prompts, at most.")] = 100,
    seed: Annotated[int, typer.Option(help="Draws the pairs, their order, and which answer is A.")] = 1,
    format: Annotated[list[Format], typer.Option(help="May be given several times.")] = [Format.html],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = paths.ASSESSMENT,
    generations: Annotated[Path, typer.Option(help="The evaluation's table of answers.")] = paths.GENERATIONS,
) -> None:
    """Write a blinded set for raters, and its key into another file."""
    from clha_core.assessment.blind import blind
    from clha_core.assessment.key import write_key
    from clha_core.assessment.label_studio import write_tasks
    from clha_core.assessment.page import write_assessment_page
    from clha_core.assessment.sheet import write_sheet
    from clha_core.judging.pairs import read_pairs, sample_pairs

    pairs = sample_pairs(read_pairs(generations, system, against), count, seed)
    blinded, key = blind(pairs, system, against, seed=seed)
    for_raters = out / "for-raters"
    if Format.html in format:
        write_assessment_page(blinded, for_raters / "assessment.html")
    if Format.csv in format:
        write_sheet(blinded, for_raters / "assessment.csv")
    if Format.label_studio in format:
        write_tasks(blinded, for_raters / "label-studio")
    write_key(key, out / "key.json")
    say(console, f"{len(blinded.items)} pairs to rate are in {for_raters}: give raters this folder only.")
    if key.identical:
        say(console, f"{len(key.identical)} more pairs have identical answers; they will count as ties.")
    say(console, f"Which system is which is in {out / 'key.json'}: keep it, raters must not see it.")


@app.command("import")
def import_votes(
    files: Annotated[list[Path], typer.Argument(help="Raters' files: the page's JSON, CSV, Label Studio's JSON.")],
    key: Annotated[Path, typer.Option(help="The key of the export.")] = paths.ASSESSMENT / "key.json",
    verdicts: Annotated[Path | None, typer.Option(help="Table of `clha judge`, to compare the raters with.")] = None,
    tie_band: Annotated[float, typer.Option(min=0, help="Reward differences up to this size are ties.")] = 0.0,
    out: Annotated[Path, typer.Option(help="JSON file with every figure.")] = paths.ASSESSMENT / "results.json",
) -> None:
    """Count the votes: win/tie/lose, agreement of raters with each other and with the reward model."""
    from clha_core.assessment.key import read_key
    from clha_core.assessment.results import assess
    from clha_core.assessment.table import print_results
    from clha_core.assessment.votes import read_ballots
    from clha_core.stages.context import write_metrics

    opened = read_key(key)
    results = assess(opened, read_ballots(files, opened), load_params().evaluate, verdicts=verdicts, tie_band=tie_band)
    write_metrics(results, out)
    print_results(results, console)
    say(console, f"Every figure is in {out}.")
