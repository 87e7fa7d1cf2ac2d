"""The registry from Prefect: list, compare, promote, roll back. Each is the function behind the command of its name."""

import os

from prefect import Flow, flow
from prefect.artifacts import create_markdown_artifact
from prefect.deployments.runner import RunnerDeployment
from prefect.runtime import flow_run
from prefect.types.entrypoint import EntrypointType

from clha_core.params import Params, load_params
from clha_core.paths import PARAMS
from clha_core.tracking.lineage import FLOW_RUN_ID, FLOW_RUN_URL
from flows.workspace import HOME

LIST_KEY, COMPARE_KEY, CHAMPION_KEY = "clha-registry", "clha-compare", "clha-champion"


@flow(name="clha-registry-list", persist_result=False, log_prints=True)
def list_versions(model: str = "") -> str:
    """All versions of a registered model: alias, reward, the gate's figures, data, commit.

    Args:
        model: Registered model; empty for the one in params.yaml.
    """
    from clha_core.evaluation.table import markdown_table
    from clha_core.tracking import operations
    from clha_core.tracking.listing import COLUMNS

    return _artifact(LIST_KEY, markdown_table(COLUMNS, operations.listing(_params(), model or None, HOME)))


@flow(name="clha-compare", persist_result=False, log_prints=True)
def compare(a: str, b: str = "champion") -> str:
    """Two evaluated models, prompt by prompt, wherever they were trained.

    Args:
        a: A version (3, champion, NAME/3, NAME@champion) or an MLflow run (its id, the beginning of it, or its name); \
with :base, :sft or :human after it, another system of that evaluation.
        b: The same.
    """
    from clha_core.comparison.table import comparison_markdown
    from clha_core.tracking import operations

    return _artifact(COMPARE_KEY, comparison_markdown(operations.compare(_params(), a, b, HOME)))


@flow(name="clha-registry-promote", persist_result=False, log_prints=True)
def promote(version: str, why: str, by: str = "") -> str:
    """Make a version champion. What the gate says of it is noted, but you decide.

    Args:
        version: A version or an alias: 3, candidate, NAME/3, NAME@candidate.
        why: One sentence for whoever looks at the registry next year.
        by: Who wants it; empty for the git user of the checkout.
    """
    from clha_core.tracking import operations

    return _artifact(CHAMPION_KEY, operations.promote(_params(), version, why, HOME, by=by or None).sentence())


@flow(name="clha-registry-rollback", persist_result=False, log_prints=True)
def rollback(why: str, model: str = "", by: str = "") -> str:
    """Make the champion before the present one champion again.

    Args:
        why: One sentence for whoever looks at the registry next year.
        model: Registered model; empty for the one in params.yaml.
        by: Who wants it; empty for the git user of the checkout.
    """
    from clha_core.tracking import operations

    return _artifact(CHAMPION_KEY, operations.rollback(_params(), model or None, why, HOME, by=by or None).sentence())


def registry_deployments() -> list[RunnerDeployment]:
    """One deployment for each, named like its command."""
    operations: list[Flow[..., str]] = [compare, list_versions, promote, rollback]
    made = []
    for operation in operations:
        deployment = operation.to_deployment(
            operation.name.removeprefix("clha-"), tags=["clha", "registry"], entrypoint_type=EntrypointType.MODULE_PATH
        )
        assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
        made.append(deployment)
    return made


def _params() -> Params:
    """Those of the checkout as they are now; what changes here is noted with this flow run."""
    os.environ |= {FLOW_RUN_ID: flow_run.id or "", FLOW_RUN_URL: flow_run.ui_url or ""}
    return load_params(HOME / PARAMS)


def _artifact(key: str, markdown: str) -> str:
    create_markdown_artifact(key=key, markdown=markdown, description=f"Left by {flow_run.name}")
    print(markdown)
    return markdown
