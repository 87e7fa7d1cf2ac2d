"""One cell of the scoreboard: every variant trained and measured in one world."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clha_core import paths
from clha_core.params import Params
from clha_core.tracking.lineage import origin_tags
from scoreboard import results
from scoreboard.study import Study, variant_params, world_params
from scoreboard.world import Judge, prepare, train

DIGITS = 4


@dataclass(frozen=True)
class World:
    """Where a cell stands in the study."""

    noise: float
    candidates: int
    seed: int

    @property
    def name(self) -> str:
        return f"n{self.candidates}-noise{round(100 * self.noise):02d}-seed{self.seed}"


def worlds(study: Study) -> list[World]:
    """All cells, by seed: a study that is cut off has whole tables of fewer seeds."""
    return [
        World(noise, candidates, seed)
        for seed in study.seeds
        for candidates in study.candidates
        for noise in study.noise
    ]


def run_cell(
    study: Study, base: Params, world: World, picked: dict[str, dict[str, Any]], scratch: Path
) -> dict[str, Any]:
    """Train all variants in a world and measure them on its test prompts; what was trained there is not trained again.

    Returns:
        {"key": of the world, "trainings": {name: {"set": changes of the train section, "commit": of the code}},
        "systems": {name: {measure: mean over the prompts}}}. Systems are the variants, and "base" and "start" (the SFT
        model that all begin with). Wins are against "start": 1 for a higher gold or evaluation reward, 1/2 for an equal
        one.
    """
    params = world_params(base, noise=world.noise, candidates=world.candidates, seed=world.seed)
    key = results.key_of(params, study.prompts)
    path = results.path_of(study.name, world.name)
    result = results.read(path, key) or {"key": key, "trainings": {}, "systems": {}}
    done: dict[str, dict[str, Any]] = result["trainings"]
    wanted = {
        name: changes
        for name, changes in study.variants(picked).items()
        if name not in done or done[name]["set"] != changes
    }
    if not wanted:
        return result
    root = scratch / study.name / world.name
    prepare(params, root)
    judge = Judge(params, root, "test", study.prompts)
    start = judge.measure(root / paths.SFT_MODEL, sampled=True)
    result["systems"]["base"] = _means(judge.measure(root / paths.BASE_MODEL, sampled=True), start)
    result["systems"]["start"] = _means(start, start)
    commit = origin_tags(Path()).get("mlflow.source.git.commit")
    for name, changes in tqdm(wanted.items(), desc=world.name, unit="training"):
        tags = {"scoreboard.variant": name, "scoreboard.world": f"{study.name}/{world.name}"}
        folder = train(variant_params(params, changes), root, tags)
        result["systems"][name] = _means(judge.measure(folder, sampled=True), start)
        done[name] = {"set": changes, "commit": commit}
        results.write(path, result)
    return result


def _means(values: dict[str, np.ndarray], start: dict[str, np.ndarray]) -> dict[str, float]:
    measures = {name: column.mean() for name, column in values.items()}
    for name in [name for name in ("gold", "reward") if name in values]:
        difference = values[name] - start[name]
        measures[f"{name}_wins"] = ((difference > 0) + 0.5 * (difference == 0)).mean()
    return {name: round(float(value), DIGITS) for name, value in measures.items()}
