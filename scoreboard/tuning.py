"""Settings for every method, picked by the same budget in a world that no cell uses."""

from pathlib import Path
from typing import Any

from clha_core.params import Params
from clha_core.tracking.lineage import origin_tags
from scoreboard import results
from scoreboard.study import Study, variant_params, world_params
from scoreboard.world import Judge, prepare, train

DIGITS = 4


def tuning_path(study: Study, candidates: int) -> Path:
    """Where the settings for so many candidates are."""
    return results.path_of(study.name, f"tuning-n{candidates}")


def tune(study: Study, base: Params, candidates: int, scratch: Path) -> dict[str, Any]:
    """Train every setting of every method; keep what each is worth on the tuning world's validation prompts.

    Returns:
        {"tried": {method: [{"set": changes of the train section, "reward": mean, "gold": mean where it is known}]}}
    """
    world = world_params(base, noise=study.tuning.noise, candidates=candidates, seed=study.tuning.seed)
    trainings = {name: method.settings() for name, method in study.methods.items()}
    key = results.key_of(world, trainings, study.tuning.prompts)
    path = tuning_path(study, candidates)
    if (found := results.read(path, key)) is not None:
        return found
    root = scratch / study.name / path.stem
    prepare(world, root)
    judge = Judge(world, root, "validation", study.tuning.prompts)
    tried: dict[str, list[dict[str, Any]]] = {}
    for name, settings in trainings.items():
        for changes in settings:
            tags = {"scoreboard.variant": name, "scoreboard.world": f"{study.name}/{path.stem}"}
            values = judge.measure(train(variant_params(world, changes), root, tags), sampled=False)
            tried.setdefault(name, []).append(
                {"set": changes}
                | {
                    measure: round(float(values[measure].mean()), DIGITS)
                    for measure in ("reward", "gold")
                    if measure in values
                }
            )
    result = {"key": key, "commit": origin_tags(Path()).get("mlflow.source.git.commit"), "tried": tried}
    results.write(path, result)
    return result


def picked(tuned: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By method, the setting with the highest evaluation reward on validation."""
    return {name: max(tried, key=lambda one: one["reward"])["set"] for name, tried in tuned["tried"].items()}


def setting_text(changes: dict[str, Any]) -> str:
    """A setting as the docs show it."""
    shown = {name: value for name, value in changes.items() if name != "method"}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
