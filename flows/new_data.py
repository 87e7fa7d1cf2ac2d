"""Starts a run when its data have changed: on an event, by the clock, or by hand.

What a run read is a tag of it, `data:` and DVC's hash. So what is new needs no memory of its own: it is what the last
run of the same preset did not read.
"""

from pathlib import Path
from typing import Any

import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.runtime import flow_run
from prefect.schedules import Cron
from prefect.states import Completed
from prefect.types.entrypoint import EntrypointType

from clha_core.params import load_params
from clha_core.paths import PARAMS
from flows.workspace import HOME, run

ARRIVED = "clha.data.arrived"
DATA_TAG = "data:"
PIPELINE = "clha"
HOW_TO = (
    f"Emit the event `{ARRIVED}` when data have arrived, or switch the schedule on. A run starts only if DVC's hash of "
    "the data is another one than that of the last run."
)


def data_hash(path: str, home: Path) -> str | None:
    """DVC's hash of the data that a run would read now; None where there are none.

    Args:
        path: data.path, relative to `home`.
    """
    tracked = f"{path}.dvc"
    inside = not Path(path).is_absolute()
    if inside and tracked in run(["git", "ls-tree", "--name-only", "HEAD", "--", tracked], home).splitlines():
        # A run uses the commit, whatever lies in the checkout.
        return str(yaml.safe_load(run(["git", "show", f"HEAD:./{tracked}"], home))["outs"][0]["md5"])
    if not (home / path).exists():
        return None
    # DVC has no command that tells the hash of data that it does not track. Imported here: every run imports this file.
    from dvc.dependency import loads_from
    from dvc.repo import Repo
    from dvc.stage import Stage

    with Repo(str(home)) as repo:
        (dependency,) = loads_from(Stage(repo, str(home / "dvc.yaml"), wdir=str(home)), [path])
        return str(dependency.get_hash().value)


def data_that_ran(root: Path) -> str | None:
    """DVC's hash of the data that the workspace at `root` has ingested; None before the step ingest."""
    path = load_params(root / PARAMS).data.path
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    read = [dep for dep in lock["stages"]["ingest"]["deps"] if dep["path"] == path]
    return read[0]["md5"] if read else None


def tag_with_data(root: Path) -> None:
    """Write on this flow run what data it has ingested."""
    md5 = data_that_ran(root)
    tags = set(flow_run.tags)
    if flow_run.id and md5 and f"{DATA_TAG}{md5}" not in tags:
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, tags={*tags, f"{DATA_TAG}{md5}"})


def last_data(runs: list[FlowRun]) -> str | None:
    """The hash of the data of the newest of these runs that has read any; `runs` are the newest first."""
    for past in runs:
        for tag in past.tags:
            if tag.startswith(DATA_TAG):
                return tag.removeprefix(DATA_TAG)
    return None


@flow(name="clha-new-data", persist_result=False)
def new_data(preset: str) -> State[None]:
    """Start a preset's run if its data are others than those of its last run.

    Args:
        preset: The deployment of the pipeline to start; it has to have run once.
    """
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"{PIPELINE}/{preset}")
        past = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=200,
        )
    before = last_data(past)
    path = deployment.parameters["params"]["data"]["path"]
    now = data_hash(path, HOME)
    if now is None:
        message = f"there is nothing at {path}"
    elif before is None:
        message = f"{preset} has never run: start it once by hand, then new data start it"
    elif now == before:
        message = f"{path} is as in the last run"
    else:
        started = run_deployment(
            deployment.id, timeout=0, as_subflow=False, tags=[*deployment.tags, f"{DATA_TAG}{now}"]
        )
        assert isinstance(started, FlowRun)  # a coroutine only inside an event loop
        message = f"{path} has changed from {before} to {now}: started {started.name}"
    return Completed(message=message)


def new_data_deployments(presets: dict[str, dict[str, Any]]) -> list[RunnerDeployment]:
    """One for each preset that reads a folder of one's own (data.source is local).

    Args:
        presets: values of the pipeline's form, by preset.
    """
    made = []
    for name, values in presets.items():
        if values["params"]["data"]["source"] != "local":
            continue
        deployment = new_data.to_deployment(
            name,
            parameters={"preset": name},
            description=f"Starts {PIPELINE}/{name}. {HOW_TO}",
            tags=["clha", "new-data"],
            # Two at once would both find the data changed.
            concurrency_limit=1,
            schedules=[Cron("*/10 * * * *", slug="every-ten-minutes", active=False)],
            triggers=[DeploymentEventTrigger(name=f"clha: new data for {name}", expect={ARRIVED})],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
        made.append(deployment)
    return made
