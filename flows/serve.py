"""`python -m flows.serve`: deployments, one for each preset with its form filled in and one for each operation of the
registry, and a process that runs what is started.

Needs PREFECT_API_URL; `python -m flows.start` sets it and starts everything else too.
"""

from pathlib import Path
from typing import Any

import yaml
from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.types.entrypoint import EntrypointType

from clha_core import paths
from clha_core.params import parse_params
from clha_core.presets import PRESETS, load_preset, merged, preset_names
from flows.pipeline import clha
from flows.registry import registry_deployments
from flows.workspace import HOME
from flows.zombies import require_heartbeats

HOW_TO = (
    "Run > Custom run shows every parameter of params.yaml, filled in for this preset. Steps that nothing changed for "
    "are taken from DVC's cache. A run uses the last commit, in a workspace of its own."
)


def preset_parameters(name: str, home: Path = HOME) -> dict[str, Any]:
    """The preset laid over params.yaml, as the form takes it.

    Raises:
        UserError: no such preset, or the result is not valid.
    """
    values = yaml.safe_load((home / paths.PARAMS).read_text(encoding="utf-8"))
    params = parse_params(merged(values, load_preset(name, home / PRESETS)), f"preset {name}")
    return {"params": params.model_dump(mode="json", by_alias=True)}


def preset_description(name: str, home: Path = HOME) -> str:
    """The comment at the head of the preset's file, and how to start a run."""
    about = []
    for line in (home / PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        about.append(line.removeprefix("#").strip())
    return f"{' '.join(about)}\n\n{HOW_TO}".strip()


def deployments(home: Path = HOME) -> list[RunnerDeployment]:
    """One deployment for each preset, named like it."""
    made = []
    for name in preset_names(home / PRESETS):
        parameters = preset_parameters(name, home)
        deployment = clha.to_deployment(
            name,
            parameters=parameters,
            description=preset_description(name, home),
            tags=["clha"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
        made.append(deployment)
    return made


if __name__ == "__main__":
    require_heartbeats()
    serve(*registry_deployments(), *deployments())
