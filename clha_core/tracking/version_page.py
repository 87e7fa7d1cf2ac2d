"""The page of a registered version: where it comes from, and how to get that back. And from the run to the version."""

import re
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.entities.model_registry import ModelVersion

from clha_core import paths
from clha_core.markdown import as_text, link
from clha_core.tracking.lineage import COMMIT_TAG, DVC_MD5_TAG, MODEL_MD5_TAG, REPOSITORY_TAG
from clha_core.tracking.registry import run_of

MODEL = paths.ALIGNED_MODEL.as_posix()
REGISTERED_TAG = "clha.registered_as"
FLOW_RUN_TAG = "prefect.flow_run_url"
PLAIN = re.compile(r"[\w./-]+")  # a path, an md5: commands to copy into a shell hold nothing else


def write_version_page(client: MlflowClient, name: str, number: str) -> None:
    """Write a version's description, tags to find it by, and on its run which version it is."""
    version = client.get_model_version(name, number)
    run = run_of(client, version)
    if run is None:
        return
    for key, value in origin_of(run).items():
        client.set_model_version_tag(name, number, key, value)
    client.update_model_version(name, number, description=describe(version, run))
    aliases = f" ({', '.join(sorted(version.aliases))})" if version.aliases else ""
    if run.info.lifecycle_stage == LifecycleStage.ACTIVE:  # one in MLflow's bin can be read, not written
        client.set_tag(run.info.run_id, REGISTERED_TAG, f"{name} version {number}{aliases}")


def origin_of(run: Run) -> dict[str, str]:
    """Tags of a version that say what it was made from: `data/rescored` and its like (DVC md5), commit, flow run."""
    origin = {data.dataset.name: md5 for data in run.inputs.dataset_inputs for md5 in _md5(data.tags)}
    tags = {MODEL: MODEL_MD5_TAG, "git.commit": COMMIT_TAG, FLOW_RUN_TAG: FLOW_RUN_TAG}
    return origin | {tag: run.data.tags[source] for tag, source in tags.items() if source in run.data.tags}


def describe(version: ModelVersion, run: Run) -> str:
    """Markdown; links to MLflow are relative, so that they hold wherever the server is."""
    tags, origin = run.data.tags, origin_of(run)
    lines = ["| | |", "|---|---|"]
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    lines.append(f"| Training | {link(run.info.run_name, page)} |")
    versioned = {
        path: md5
        for path, md5 in origin.items()
        if path.startswith(("data/", MODEL)) and PLAIN.fullmatch(path) and PLAIN.fullmatch(md5)
    }
    lines += [f"| `{path}` | DVC md5 `{md5}` |" for path, md5 in versioned.items()]
    if commit := tags.get(COMMIT_TAG):
        shown = link(commit, f"{tags.get(REPOSITORY_TAG, '')}/commit/{commit}")
        dirty = ", with uncommitted changes" if tags.get("git.dirty") == "true" else ""
        lines.append(f"| Code | git commit {shown}{dirty} |")
    if url := tags.get(FLOW_RUN_TAG):
        lines.append(f"| Flow run | {link(tags.get('prefect.flow_run_id', url), url)} |")
    if gate := version.tags.get("gate.reason"):
        asked = ", ".join(version.tags[key] for key in ("gate.at", "gate.by") if key in version.tags)
        lines.append(f"| Gate | {as_text(gate)}{f' ({as_text(asked)})' if asked else ''} |")
    for heading, prefix in (("Made champion", "promoted"), ("Rolled back", "rolled_back")):
        if f"{prefix}.why" in version.tags:
            lines.append(f"| {heading} | {_decision(version.tags, prefix)} |")
    if versioned:
        lines += [
            "",
            "To have exactly this data and this model again, in a checkout of the project:",
            "",
            "```",
            # The model was made last, so its md5 tells more than those of the data.
            f"git log --all --oneline -S {list(versioned.values())[-1]} -- dvc.lock",
            "git checkout COMMIT",
            f"dvc checkout {' '.join(versioned)}",
            "```",
            "",
            "The first command lists commits and DVC experiments. On other machines use `dvc pull`.",
        ]
    return "\n".join(lines) + "\n"


def _decision(tags: Mapping[str, str], prefix: str) -> str:
    facts = as_text(f"{tags[f'{prefix}.at']}, by {tags[f'{prefix}.by']}: {tags[f'{prefix}.why']}")
    url = tags.get(f"{prefix}.flow_run_url")
    return f"{facts} ({link('flow run', url)})" if url else facts


def _md5(tags: list) -> list[str]:
    return [tag.value for tag in tags if tag.key == DVC_MD5_TAG]
