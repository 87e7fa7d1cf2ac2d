"""The flow: the stages of dvc.yaml as visible tasks in a workspace of the run's own, then the model registry.

Prefect decides when and where; what a step does, and whether it has to run at all, is DVC's to know. Prefect's own
caching of results stays off, so that there is one answer to "has this changed".
"""

import json
import os
from collections.abc import Mapping

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from clha_core import paths
from clha_core.markdown import as_text
from clha_core.params import Params
from clha_core.tracking.lineage import FLOW_RUN_ID, FLOW_RUN_URL
from flows.elsewhere import run_elsewhere
from flows.exchange import exchange_of, pull_outputs, push_outputs
from flows.form import FormParams
from flows.new_data import PIPELINE, tag_with_data
from flows.pools import parse_pools
from flows.stage import STAGES, unchanged_stages
from flows.step import CACHED, run_stage
from flows.workspace import HOME, Workspace, workspace_of

SUMMARY_KEY, MLFLOW_KEY, VERSION_KEY = "clha-summary", "clha-mlflow-run", "clha-model-version"


@task(name="register", task_run_name="register", cache_policy=NO_CACHE, persist_result=False, log_prints=True)
def register(params: Params, workspace: Workspace) -> str:
    """Put the model into MLflow's registry; champion only if it passes the gate. Never cached.

    Returns:
        Where to look at the MLflow run.
    """
    # Here, because these bring torch with them, and a run that waits for its stages needs none of it.
    from clha_core.evaluation.table import summary_markdown
    from clha_core.stages.register import run as register_model

    registration = register_model(params, workspace.root)
    get_run_logger().info(registration.sentence())
    metrics = json.loads((workspace.root / paths.EVALUATE_METRICS).read_text(encoding="utf-8"))
    table = summary_markdown(metrics, params.train.method)
    create_markdown_artifact(
        key=SUMMARY_KEY,
        markdown=f"## Result of {as_text(flow_run.name or '')}\n\n{table}\n{as_text(registration.sentence())}\n",
        description="Base, SFT and the aligned model on the test prompts",
    )
    if registration.version_link:  # there is a server
        create_link_artifact(
            key=MLFLOW_KEY,
            link=registration.link,
            link_text="MLflow run",
            description="Curves, figures and reports",
        )
        create_link_artifact(
            key=VERSION_KEY,
            link=registration.version_link,
            link_text=f"{registration.model_name} version {registration.version}",
            description="The registered model: data, commit, gate and who made it champion",
        )
    return registration.link


def run_stages(workspace: Workspace, pool_of: Mapping[str, str]) -> dict[str, State[None]]:
    """All stages in order, each here or in its pool; all outputs are here afterwards."""
    exchange = exchange_of(workspace.home, workspace.name) if pool_of else None
    states: dict[str, State[None]] = {}
    unchanged = unchanged_stages(workspace.root, os.environ)
    here: list[str] = []  # stages whose outputs the DVC remote may not have yet
    for stage in STAGES:
        if exchange is None or stage not in pool_of or stage in unchanged:
            step = run_stage.with_options(name=stage)
            states[stage] = step(stage, workspace, unchanged=stage in unchanged, pull=exchange is not None)
            here.append(stage)
        else:
            push_outputs(workspace.root, here)
            here.clear()
            states[stage] = run_elsewhere.with_options(name=stage)(stage, pool_of[stage], workspace, exchange)
        if stage == "ingest":
            tag_with_data(workspace.root)
    if exchange is not None:
        pull_outputs(workspace.root, pool_of)
        exchange.remove(workspace.root)
    return states


@flow(name=PIPELINE, persist_result=False, log_prints=True)
def clha(params: FormParams, pools: str = "") -> State[None]:
    """From preference data to an aligned, evaluated and registered model.

    Args:
        params: Everything in params.yaml. Steps whose parameters and inputs did not change are taken from DVC's cache.
        pools: Steps that run in a work pool, and not here: `sft=gpu train=gpu`. See docs/operations.md.
    """
    logger = get_run_logger()
    pool_of = parse_pools(pools)
    os.environ |= {FLOW_RUN_ID: flow_run.id or "", FLOW_RUN_URL: flow_run.ui_url or ""}

    workspace = workspace_of(HOME, flow_run.name or "run", flow_run.id or "")
    if changed := workspace.uncommitted():
        logger.warning(
            "This run uses the last commit. Not committed, so not in it: %s. Commit and start again to run them.",
            ", ".join(changed),
        )
    with workspace.alone():
        if workspace.is_new:
            workspace.create()
        logger.info("Workspace of this run: %s", workspace.root)
        workspace.write_params(params)
        for linked in workspace.link_local_inputs(params):
            logger.info("%s is not in git: the run reads it from your checkout", linked)
        if "ingest" not in pool_of:
            workspace.require_data(params)
        try:
            states = run_stages(workspace, pool_of)
            link = register(params, workspace)
            workspace.save_experiment()
        except BaseException:
            logger.warning("The workspace stays as it is: %s. Retry goes on from there.", workspace.root)
            raise
        workspace.remove()
    logger.info(
        "Kept as DVC experiment %s: `dvc exp show` compares it, `dvc exp apply %s` puts it into your checkout.",
        workspace.name,
        workspace.name,
    )
    if ran := [stage for stage, state in states.items() if state.name != CACHED]:
        message = f"ran {', '.join(ran)}; results are in MLflow: {link}"
    else:
        message = f"all steps cached; results come from MLflow: {link}"
    logger.info(message)
    return Completed(message=message)
