"""All versions of a registered model, for the terminal and as Markdown."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from clha_core.errors import UserError
from clha_core.evaluation.table import NOTHING
from clha_core.tracking.lineage import COMMIT_TAG
from clha_core.tracking.registry import run_of
from clha_core.tracking.version_page import origin_of

COLUMNS = ["Version", "Alias", "Run", "Evaluation reward", "Gate", "Champion", "Data", "Commit"]
SHORT = 8  # of a digest: enough to tell versions apart; `clha registry show` has all of it


def list_versions(client: MlflowClient, name: str) -> list[list[str]]:
    """A row of COLUMNS for each version, the newest first.

    Raises:
        UserError: nothing is registered under that name.
    """
    versions = client.search_model_versions(f"name = '{name}'")
    if not versions:
        known = ", ".join(sorted(model.name for model in client.search_registered_models())) or "none"
        raise UserError(f"there is no version of {name} (registered models: {known}). `clha register` makes one.")
    # Searching leaves the aliases out.
    found = [client.get_model_version(name, version.version) for version in versions]
    return [_row(version, run_of(client, version)) for version in sorted(found, key=lambda one: -int(one.version))]


def _row(version: ModelVersion, run: Run | None) -> list[str]:
    tags = version.tags
    since = [tags[f"promoted.{key}"] for key in ("at", "by", "why") if f"promoted.{key}" in tags]
    row = [str(version.version), ", ".join(sorted(version.aliases)) or NOTHING]
    row += [run.info.run_name, _reward(run)] if run else [NOTHING, NOTHING]
    row += [_gate(tags), ", ".join(since) or NOTHING]
    if run is None:
        return [*row, NOTHING, NOTHING]
    data = [md5 for path, md5 in origin_of(run).items() if path.startswith("data/")]
    return [*row, data[-1][:SHORT] if data else NOTHING, run.data.tags.get(COMMIT_TAG, NOTHING)[:SHORT]]


def _gate(tags: Mapping[str, str]) -> str:
    opponent = tags.get("gate.opponent")
    if opponent is None:
        return NOTHING
    return (
        f"{tags['gate.difference']} over {opponent}" if "gate.difference" in tags else f"not compared with {opponent}"
    )


def _reward(run: Run) -> str:
    mean, low, high = (run.data.metrics.get(f"evaluate/total/reward{bound}") for bound in ("", "_low", "_high"))
    if mean is None:
        return NOTHING
    return f"{mean:.2f}" if low is None or high is None else f"{mean:.2f} [{low:.2f}, {high:.2f}]"
