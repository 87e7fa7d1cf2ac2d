"""Cells put together: for every variant and kind of world, means over the seeds with intervals."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from clha_core.errors import UserError
from scoreboard import results
from scoreboard.cell import World, worlds
from scoreboard.study import Study

CONFIDENCE = 0.95
MEASURES = {
    "gold": "gold, greedy",
    "sampled_gold": "gold, sampled",
    "reward": "evaluation reward",
    "gold_wins": "wins against SFT, gold",
    "reward_wins": "wins against SFT, evaluation reward",
    "tokens": "tokens an answer",
}
SHARES = {"gold_wins", "reward_wins"}


def frame(found: Iterable[tuple[World, dict[str, Any]]]) -> pd.DataFrame:
    """A row per world, variant: noise, candidates, seed, variant and the measures."""
    return pd.DataFrame(
        {"noise": world.noise, "candidates": world.candidates, "seed": world.seed, "variant": name} | measures
        for world, result in found
        for name, measures in result["systems"].items()
    )


def finished(study: Study) -> list[tuple[World, dict[str, Any]]]:
    """All cells that have a result of every variant of the study, and of these alone, in its order.

    Raises:
        UserError: there is none.
    """
    names = ["base", "start", *study.methods, *study.ablations]
    found = []
    for world in worlds(study):
        path = results.path_of(study.name, world.name)
        systems = json.loads(path.read_text(encoding="utf-8"))["systems"] if path.exists() else {}
        if systems.keys() >= set(names):
            found.append((world, {"systems": {name: systems[name] for name in names}}))
    if not found:
        raise UserError(f"no cell of the study {study.name} is finished: make scoreboard.")
    return found


def measures_of(cells: pd.DataFrame) -> list[str]:
    """The measures that a study has: gold rewards are known for the embedded sample only."""
    return [measure for measure in MEASURES if measure in cells]


def interval(values: pd.Series) -> tuple[float, float]:
    """Mean over the seeds and half the width of its interval (Student's t; seeds are the sample, not prompts)."""
    half = stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) if len(values) > 1 else np.nan
    return float(values.mean()), float(half)


def summary(cells: pd.DataFrame) -> pd.DataFrame:
    """By candidates, noise and variant, in the order of the study: mean and half-width of every measure."""
    rows = []
    for (candidates, noise, variant), group in cells.groupby(["candidates", "noise", "variant"], sort=False):
        row: dict[str, Any] = {"candidates": candidates, "noise": noise, "variant": variant, "seeds": len(group)}
        for measure in measures_of(cells):
            row[measure], row[f"{measure}_half"] = interval(group[measure])
        rows.append(row)
    return pd.DataFrame(rows)


def differences(cells: pd.DataFrame, first: str, second: str, measure: str) -> pd.Series:
    """first - second of a measure in every world, by candidates, noise and seed."""
    wide = cells.pivot_table(index=["candidates", "noise", "seed"], columns="variant", values=measure)
    return wide[first] - wide[second]


def against(cells: pd.DataFrame, first: str, second: str, measure: str) -> pd.DataFrame:
    """Differences first - second of a measure, paired by seed, with intervals, by candidates and noise."""
    return pd.DataFrame(
        [
            {"candidates": candidates, "noise": noise, "difference": mean, "half": half}
            for (candidates, noise), group in differences(cells, first, second, measure).groupby(
                ["candidates", "noise"]
            )
            for mean, half in [interval(group)]
        ]
    )


def overall(cells: pd.DataFrame, first: str, second: str, measure: str) -> tuple[float, float]:
    """Difference first - second of a measure: mean over the seeds, of each seed's mean over its worlds."""
    return interval(differences(cells, first, second, measure).groupby("seed").mean())


def markdown(rows: pd.DataFrame, candidates: int, measure: str) -> str:
    """One measure as a Markdown table: variants by noise."""
    of_n = rows[rows["candidates"] == candidates]
    levels = sorted(of_n["noise"].unique())
    lines = [
        f"| {MEASURES[measure]}, n = {candidates} | " + " | ".join(f"{level:.0%} flipped" for level in levels) + " |",
        "|:--|" + "--:|" * len(levels),
    ]
    best = {level: of_n.loc[of_n["noise"] == level, measure].max() for level in levels}
    for variant in of_n["variant"].unique():
        cells = []
        for level in levels:
            cell = of_n[(of_n["variant"] == variant) & (of_n["noise"] == level)].iloc[0]
            scale, digits = (100, 0) if measure in SHARES else (1, 2)
            text = f"{scale * cell[measure]:.{digits}f} ± {scale * cell[measure + '_half']:.{digits}f}"
            cells.append(f"**{text}**" if cell[measure] == best[level] and measure != "tokens" else text)
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
