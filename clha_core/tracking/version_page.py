"""The page of a registered version: where it comes from, and how to get that back. And from the run to the version."""

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from clha_core.tracking.lineage import COMMIT_TAG, DVC_MD5_TAG, REPOSITORY_TAG
from clha_core.tracking.registry import is_absent

REGISTERED_TAG = "clha.registered_as"
FLOW_RUN_TAG = "prefect.flow_run_url"


def write_version_page(client: MlflowClient, name: str, number: str) -> None:
    """Write a version's description, tags to find it by, and on its run which version it is."""
    version = client.get_model_version(name, number)
    run = run_of(client, version)
    if run is None:  # registered by hand, or its run was deleted
        return
    for key, value in origin_of(run).items():
        client.set_model_version_tag(name, number, key, value)
    client.update_model_version(name, number, description=describe(version, run))
    aliases = f" ({', '.join(sorted(version.aliases))})" if version.aliases else ""
    client.set_tag(run.info.run_id, REGISTERED_TAG, f"{name} version {number}{aliases}")


def run_of(client: MlflowClient, version: ModelVersion) -> Run | None:
    """The training run of a version, where there is one."""
    try:
        return client.get_run(version.run_id) if version.run_id else None
    except MlflowException as error:
        if is_absent(error):
            return None
        raise


def origin_of(run: Run) -> dict[str, str]:
    """Tags of a version that say what it was made from: `data/rescored` and its like (DVC md5), commit, flow run."""
    origin = {data.dataset.name: md5 for data in run.inputs.dataset_inputs for md5 in _md5(data.tags)}
    for tag, source in (("git.commit", COMMIT_TAG), (FLOW_RUN_TAG, FLOW_RUN_TAG)):
        if source in run.data.tags:
            origin[tag] = run.data.tags[source]
    return origin


def describe(version: ModelVersion, run: Run) -> str:
    """Markdown; links to MLflow are relative, so that they hold wherever the server is."""
    tags, origin = run.data.tags, origin_of(run)
    lines = ["| | |", "|---|---|"]
    lines.append(f"| Training | [{run.info.run_name}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}) |")
    data = {key: md5 for key, md5 in origin.items() if key.startswith("data/")}
    lines += [f"| Data | `{path}`, DVC md5 `{md5}` |" for path, md5 in data.items()]
    if commit := tags.get(COMMIT_TAG):
        repository = tags.get(REPOSITORY_TAG)
        shown = f"[{commit}]({repository}/commit/{commit})" if repository else f"`{commit}`"
        dirty = ", with uncommitted changes" if tags.get("git.dirty") == "true" else ""
        lines.append(f"| Code | git commit {shown}{dirty} |")
    if url := tags.get(FLOW_RUN_TAG):
        lines.append(f"| Flow run | [{tags.get('prefect.flow_run_id', url)}]({url}) |")
    if gate := version.tags.get("gate.reason"):
        lines.append(f"| Gate | {gate} |")
    if why := version.tags.get("promoted.why"):
        lines.append(
            f"| Champion since | {version.tags['promoted.at']}, by {version.tags['promoted.by']}: {_cell(why)} |"
        )
    if why := version.tags.get("rolled_back.why"):
        given_up = f"{version.tags['rolled_back.at']}, by {version.tags['rolled_back.by']}: {_cell(why)}"
        lines.append(f"| Rolled back | {given_up} |")
    if data:
        paths, md5 = " ".join(data), list(data.values())[-1]
        lines += [
            "",
            "To have exactly this data and model again, in a checkout of the project:",
            "",
            "```",
            f"git log --all --oneline -S {md5} -- dvc.lock   # commits and DVC experiments with this data",
            "git checkout COMMIT",
            f"dvc checkout {paths} models/aligned   # from this machine's cache; `dvc pull` fetches from a remote",
            "```",
        ]
    return "\n".join(lines) + "\n"


def _md5(tags: list) -> list[str]:
    return [tag.value for tag in tags if tag.key == DVC_MD5_TAG]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
