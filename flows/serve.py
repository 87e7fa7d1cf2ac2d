"""`python -m flows.serve`: deployments, one for each preset with its form filled in, what starts them when data are
new, and one for each operation of the registry; and a process that runs what is started.

Needs PREFECT_API_URL; `python -m flows.start` sets it and starts everything else too.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from prefect import serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType

from clha_core import paths
from clha_core.params import parse_params
from clha_core.presets import PRESETS, load_preset, merged, preset_names
from flows.gpu import require_gpu_limit
from flows.new_data import new_data_deployments
from flows.pipeline import clha
from flows.pools import default_pools
from flows.registry import registry_deployments
from flows.workspace import HOME
from flows.zombies import require_heartbeats

# Off until somebody switches it on in the UI; a restart leaves it as it is.
NIGHTLY = Schedule(cron="0 2 * * *", slug="nightly", active=False)
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
    pools = default_pools()
    for name in preset_names(home / PRESETS):
        parameters = preset_parameters(name, home)
        deployment = clha.to_deployment(
            name,
            parameters=parameters | {"pools": pools},
            schedules=[NIGHTLY],
            description=preset_description(name, home),
            tags=["clha"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
        made.append(deployment)
    return made


def switched_as_before(made: list[RunnerDeployment]) -> list[RunnerDeployment]:
    """The same deployments, with the schedules that somebody has changed, added or switched on in the UI.

    Serving them would put the schedules back to what they are here.
    """
    with get_client(sync_client=True) as client:
        for deployment in made:
            deployment.paused = False  # all are paused while nothing serves them
            with suppress(ObjectNotFound):
                known = client.read_deployment_by_name(f"{deployment.flow_name}/{deployment.name}")
                deployment.schedules = [
                    DeploymentScheduleCreate(
                        schedule=one.schedule, active=one.active, parameters=one.parameters, slug=one.slug
                    )
                    for one in known.schedules
                ]
    return made


if __name__ == "__main__":
    require_heartbeats()
    require_gpu_limit()
    presets = {name: preset_parameters(name) for name in preset_names(HOME / PRESETS)}
    serve(*switched_as_before([*registry_deployments(), *new_data_deployments(presets), *deployments()]))
