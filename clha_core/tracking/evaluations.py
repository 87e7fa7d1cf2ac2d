"""Evaluated models by the names that people have for them: versions, aliases, runs, and the working tree."""

import json
import re
import tempfile
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from clha_core import paths
from clha_core.comparison.compare import ALIGNED, Evaluation, Side
from clha_core.errors import UserError
from clha_core.evaluation.summary import NOT_INDEPENDENT, is_marked
from clha_core.params import RegistryParams
from clha_core.tracking.lineage import JUDGE_TAG
from clha_core.tracking.registry import CHAMPION, is_absent, run_of

HERE = "here"
FORMS = (
    "a registered version (champion, 3, clha-policy@champion, clha-policy/3), an MLflow run (its id, the beginning of "
    "it, or its name), or `here` for reports/evaluation"
)
LARGEST_NUMBER = 2**31 - 1  # that MLflow's databases hold as a version
RUN_ID_PREFIX = re.compile(r"[0-9a-f]{4,32}")
ARTIFACTS, EVALUATION_FILES = "evaluation", ("generations.parquet", "protocol.json")


def find_side(client: MlflowClient, text: str, registry: RegistryParams, root: Path) -> Side:
    """The evaluated system that `text` names: one of FORMS, and after a colon base, sft or human for another of its
    systems than the aligned one.

    Raises:
        UserError: nothing, or more than one thing, has that name; or it was never evaluated.
    """
    reference, colon, system = text.removeprefix("models:/").partition(":")
    if reference == HERE:
        evaluation = evaluation_here(root)
    elif version := find_version(client, reference, registry):
        evaluation = evaluation_of_version(version)
    else:
        run = find_one_run(client, reference, registry)
        evaluation = evaluation_of_run(run, f"{run.info.run_name} (run {run.info.run_id[:8]})")
    return Side(evaluation, system if colon else ALIGNED)


def find_version(client: MlflowClient, reference: str, registry: RegistryParams) -> ModelVersion | None:
    """The registered version with that number or alias; None where there is none.

    Raises:
        UserError: it names a model explicitly (NAME@ALIAS, NAME/NUMBER), and there is no such version.
    """
    named = re.fullmatch(r"(?P<model>.+)[@/](?P<version>[^@/]+)", reference)
    model, version = (named["model"], named["version"]) if named else (registry.model_name, reference)
    try:
        if not version.isdecimal():
            return client.get_model_version_by_alias(model, version)
        if int(version) <= LARGEST_NUMBER:
            return client.get_model_version(model, version)
    except MlflowException as error:
        if not is_absent(error) and error.error_code != "INVALID_PARAMETER_VALUE":  # no name that an alias could have
            raise
    if named:
        raise UserError(f"there is no {reference} in the registry: `clha registry list --model {model}` shows all.")
    return None


def require_version(client: MlflowClient, reference: str, registry: RegistryParams) -> ModelVersion:
    """Like find_version.

    Raises:
        UserError: no such version.
    """
    version = find_version(client, reference.removeprefix("models:/"), registry)
    if version is None and reference == CHAMPION:
        raise UserError(
            f"{registry.model_name} has no champion yet: `make pipeline` trains, evaluates and registers a model, and "
            "`clha registry promote VERSION` makes one that is there champion."
        )
    if version is None:
        raise UserError(
            f"{registry.model_name} has no version or alias {reference!r}: `clha registry list` shows all of them "
            "(NAME/3 names one of another model)."
        )
    return version


def find_one_run(client: MlflowClient, reference: str, registry: RegistryParams) -> Run:
    """The run with that id, beginning of an id, or name.

    Raises:
        UserError: no run, or more than one.
    """
    conditions = [f"attributes.run_name = '{reference}'"] if "'" not in reference else []
    if RUN_ID_PREFIX.fullmatch(reference):
        conditions.insert(0, f"attributes.run_id LIKE '{reference}%'")
    experiments = [found.experiment_id for found in client.search_experiments()]
    for condition in conditions:
        runs = client.search_runs(experiments, condition, max_results=10)
        if len(runs) == 1:
            return runs[0]
        if runs:
            lines = [f"  {run.info.run_id}  {run.info.run_name}" for run in runs]
            raise UserError(f"{reference!r} is {len(runs)} runs; name one by its id:\n" + "\n".join(lines))
    raise UserError(f"there is nothing called {reference!r}. A model is named by {FORMS}.")


def evaluation_here(root: Path) -> Evaluation:
    """What the working tree's stage `evaluate` left.

    Raises:
        UserError: it did not run.
    """
    folder = root / paths.EVALUATION
    for needed in (paths.GENERATIONS, paths.EVALUATION_PROTOCOL, paths.EVALUATE_METRICS):
        if not (root / needed).is_file():
            raise UserError(f"there is no {needed} here: run `dvc repro` (or `dvc pull`) first.")
    metrics = json.loads((root / paths.EVALUATE_METRICS).read_text(encoding="utf-8"))
    return _read(folder, "the working tree", is_marked(metrics))


def evaluation_of_version(version: ModelVersion) -> Evaluation:
    """The evaluation of the run that a version came from.

    Raises:
        UserError: there is none.
    """
    aliases = f" ({', '.join(sorted(version.aliases))})" if version.aliases else ""
    name = f"{version.name} version {version.version}{aliases}"
    run = run_of(MlflowClient(), version)
    if run is None:
        raise UserError(
            f"{name} has no run in MLflow, and so no evaluation: it was not registered by `clha register`, or its "
            "run was deleted."
        )
    return evaluation_of_run(run, name)


def evaluation_of_run(run: Run, name: str) -> Evaluation:
    """What was recorded of a run's evaluation; `name` is what readers call it.

    Raises:
        UserError: it was never evaluated.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for file in EVALUATION_FILES:
                mlflow.artifacts.download_artifacts(
                    run_id=run.info.run_id, artifact_path=f"{ARTIFACTS}/{file}", dst_path=scratch
                )
        except (MlflowException, OSError):
            raise UserError(
                f"{name} has no evaluation in MLflow: its run ended before the stage `evaluate`, or its files are gone."
            ) from None
        return _read(Path(scratch), name, run.data.tags.get(JUDGE_TAG) == NOT_INDEPENDENT)


def _read(folder: Path, name: str, marked: bool) -> Evaluation:
    return Evaluation(
        name=name,
        generations=pd.read_parquet(folder / "generations.parquet"),
        protocol=json.loads((folder / "protocol.json").read_text(encoding="utf-8")),
        marked=marked,
    )
