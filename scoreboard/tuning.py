"""Settings for every method, picked by the same budget in a world that no cell uses."""

import json
from pathlib import Path
from typing import Any

from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.tracking.lineage import origin_tags
from scoreboard import results
from scoreboard.study import Study, variant_params, world_params
from scoreboard.world import Judge, prepare, train

DIGITS = 4


def tuning_path(study: Study, candidates: int) -> Path:
    """Where the settings for so many candidates are."""
    return results.path_of(study.settings_from or study.name, f"tuning-n{candidates}")


def tune(study: Study, base: Params, candidates: int, scratch: Path) -> dict[str, Any]:
    """Train every setting of every method; keep what each is worth on the tuning world's validation prompts.

    A setting that was tried in the same world is not tried again. Nothing is tried for a study that takes its settings
    from another.

    Returns:
        {"tried": {method: [{"set": changes of the train section, "commit": of the code, "reward": mean, "gold": mean
        where it is known}]}}

    Raises:
        UserError: the study that the settings are from was not tuned.
    """
    path = tuning_path(study, candidates)
    if study.tuning is None:
        if not path.exists():
            raise UserError(f"{path} is not there: run the study {study.settings_from} first.")
        return json.loads(path.read_text(encoding="utf-8"))
    world = world_params(base, noise=study.tuning.noise, candidates=candidates, seed=study.tuning.seed)
    root = scratch / study.name / path.stem
    key = results.key_of(world, study.tuning.prompts)
    before = (results.read(path, key) or {"tried": {}})["tried"]
    known = [one for tried in before.values() for one in tried]
    commit = origin_tags(Path()).get("mlflow.source.git.commit")
    tried: dict[str, list[dict[str, Any]]] = {}
    judge: Judge | None = None
    for name, method in study.methods.items():
        tried[name] = []
        for changes in method.settings():
            one = next((one for one in known if one["set"] == changes), None)
            if one is None:
                if judge is None:
                    prepare(world, root)
                    judge = Judge(world, root, "validation", study.tuning.prompts)
                tags = {"scoreboard.variant": name, "scoreboard.world": f"{study.name}/{path.stem}"}
                values = judge.measure(train(variant_params(world, changes), root, tags), sampled=False)
                measures = [measure for measure in ("reward", "gold") if measure in values]
                means = {measure: round(float(values[measure].mean()), DIGITS) for measure in measures}
                one = {"set": changes, "commit": commit} | means
                results.write(path, {"key": key, "tried": before | tried | {name: [*tried[name], one]}})
            tried[name].append(one)
    return {"tried": tried}


def picked(tuned: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By method, the setting that is worth most on validation: in gold reward where it is known."""
    best = {name: max(tried, key=lambda one: one.get("gold", one["reward"])) for name, tried in tuned["tried"].items()}
    return {name: one["set"] for name, one in best.items()}


def setting_text(changes: dict[str, Any]) -> str:
    """A setting as the docs show it."""
    shown = {name: value for name, value in changes.items() if name != "method"}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
