"""The flow: the stages of dvc.yaml as visible tasks in a workspace of the run's own, then the model registry.

Prefect decides when and where; what a step does, and whether it has to run at all, is DVC's to know. Prefect's own
caching of results stays off, so that there is one answer to "has this changed".
"""

import json
import os
from pathlib import Path

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
from flows.form import FormParams
from flows.stage import STAGES, repro
from flows.workspace import Workspace, workspace_of

HOME = Path(__file__).resolve().parents[1]
CACHED = "Cached"
SUMMARY_KEY, MLFLOW_KEY = "clha-summary", "clha-mlflow-run"


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(stage: str, workspace: Workspace) -> State[None]:
    """One stage of dvc.yaml; the state is named Cached where DVC had its outputs already."""
    logger = get_run_logger()
    if repro(stage, workspace.root, os.environ, logger.info):
        return Completed(message="ran")
    logger.info("cached: nothing that this step depends on has changed")
    return Completed(name=CACHED, message="nothing changed; outputs from DVC's cache")


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
    if registration.link.startswith("http"):
        create_link_artifact(
            key=MLFLOW_KEY,
            link=registration.link,
            link_text="MLflow run",
            description="Curves, figures and reports",
        )
    return registration.link


@flow(name="clha", persist_result=False)
def clha(params: FormParams) -> State[None]:
    """From preference data to an aligned, evaluated and registered model.

    Args:
        params: Everything in params.yaml. Steps whose parameters and inputs did not change are taken from DVC's cache.
    """
    logger = get_run_logger()
    os.environ |= {FLOW_RUN_ID: flow_run.id or "", FLOW_RUN_URL: flow_run.ui_url or ""}

    workspace = workspace_of(HOME, flow_run.name or "run", flow_run.id or "")
    if changed := workspace.uncommitted():
        logger.warning(
            "This run uses the last commit. Not committed, so not in it: %s. Commit and start again to run them.",
            ", ".join(changed),
        )
    if workspace.is_new:
        workspace.create()
    logger.info("Workspace of this run: %s", workspace.root)
    workspace.write_params(params)
    for linked in workspace.link_local_inputs(params):
        logger.info("%s is not in git: the run reads it from your checkout", linked)

    try:
        states = {stage: run_stage.with_options(name=stage, task_run_name=stage)(stage, workspace) for stage in STAGES}
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
