"""`python -m reliability kills|disk|malformed`: the campaigns; `make faults` runs all in full."""

import os
from typing import Annotated

import typer

from clha_core import paths
from reliability.results import RESULTS, write

SCRATCH = paths.SCRATCH / "reliability"

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.command()
def kills(
    chains: Annotated[int, typer.Option(help="Of six kills each, by turns over the stages.")] = 18,
    at_most: Annotated[int, typer.Option(help="Of those that are left; the next call goes on.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 1,
) -> None:
    """Kill `dvc repro` at random moments, run it again, compare bytes. Needs what is committed, nothing else."""
    from reliability.kills import campaign

    done = campaign(chains, at_most, seed, RESULTS / "kills.json", SCRATCH / "kills")
    if damaged := [chain for chain in done if chain.damage]:
        raise typer.Exit(len(damaged))


@app.command()
def disk() -> None:
    """Fill a small disk before every stage, look at what is said, make space, run again. Needs root, to mount it."""
    from reliability.full_disk import campaign

    if any(filled.damage for filled in campaign(RESULTS / "disk.json", SCRATCH / "disk")):
        raise typer.Exit(1)


@app.command()
def malformed(
    corrupted: Annotated[int, typer.Option(help="Corrupted files for each reader.")] = 1500,
    nearly_valid: Annotated[int, typer.Option(help="Well-formed, wrong files for each reader of text.")] = 500,
    seed: Annotated[int, typer.Option(help="Of both.")] = 1,
) -> None:
    """Give corrupted and nearly valid files to every reader of what users bring."""
    from reliability.malformed import bytes_campaign, structured_campaign

    found = {"corrupted": bytes_campaign(corrupted, seed), "nearly valid": structured_campaign(nearly_valid, seed)}
    write(
        RESULTS / "malformed.json",
        {way: {name: vars(tally) for name, tally in of.items()} for way, of in found.items()},
    )
    for way, tallies in found.items():
        for name, tally in tallies.items():
            print(f"{name}, {way}: {tally.read} read, {tally.refused} refused, {tally.failed} faults")
            for fault in tally.faults.values():
                print(fault)
    if any(tally.failed for tallies in found.values() for tally in tallies.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    app()
