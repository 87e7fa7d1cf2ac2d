"""Register the aligned model. Not a DVC stage: the registry is the world outside, so nothing here is cached."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from clha_core import paths
from clha_core.digest import file_digest, folder_digest
from clha_core.errors import UserError
from clha_core.evaluation.summary import is_marked
from clha_core.models.loading import load_policy, load_tokenizer
from clha_core.params import Params
from clha_core.tracking.lineage import EVALUATION_DIGEST_TAG
from clha_core.tracking.mlflow_tracker import connect, find_run, run_link, run_of_model, version_link
from clha_core.tracking.promotion import apply_gate, person
from clha_core.tracking.record import describe_evaluation
from clha_core.tracking.registry import (
    CHAMPION,
    GateResult,
    add_version,
    champion_of,
    judge,
    rewards_of_version,
    version_of,
)
from clha_core.tracking.turns import FINISHED_MODELS, turn


@dataclass(frozen=True)
class Registration:
    """Which version this model is, under which alias, why, and whether it is new."""

    model_name: str
    version: str
    alias: str
    reason: str
    run_id: str
    link: str
    version_link: str
    new: bool

    def sentence(self) -> str:
        lines = [f"{self.model_name} version {self.version} is {self.alias}: {self.reason}."]
        if not self.new:
            lines.append("This exact model was registered before: nothing new came out of training.")
        lines.append(f"MLflow: {self.link}")
        return "\n".join(lines)


def run(params: Params, root: Path = Path(), *, against_base: bool = False) -> Registration:
    """Register models/aligned (once), judge it against the champion or the base, and set its alias.

    Raises:
        UserError: there is no evaluated model, or MLflow does not answer.
    """
    if not (root / paths.ALIGNED_MODEL).is_dir() or not (root / paths.EVALUATION).is_dir():
        raise UserError("there is no evaluated model here: run `dvc repro` (or `dvc pull`) first.")
    client = connect(root, params.registry.experiment)
    with turn(root, FINISHED_MODELS):
        return _register(params, root, client, against_base)


def _register(params: Params, root: Path, client: MlflowClient, against_base: bool) -> Registration:
    model, evaluation = root / paths.ALIGNED_MODEL, root / paths.EVALUATION
    name = params.registry.model_name
    model_digest = folder_digest(model)
    evaluation_digest = file_digest(root / paths.EVALUATION_PROTOCOL)
    recorded = _recorded_run(params, root, model_digest, evaluation_digest)

    version = version_of(client, name, model_digest)
    new = version is None
    if version is None:
        policy = load_policy(model, dtype=params.policy.dtype, trust_remote_code=params.policy.trust_remote_code)
        tokenizer = load_tokenizer(model, trust_remote_code=params.policy.trust_remote_code)
        version = add_version(recorded, name, policy, tokenizer, model_digest)
    champion = champion_of(client, name)
    if champion is not None and champion.version == version.version:
        alias, reason = CHAMPION, "it was already"
    else:
        metrics = json.loads((root / paths.EVALUATE_METRICS).read_text(encoding="utf-8"))
        opponent = None if against_base else champion
        gate = _gate(params, evaluation, opponent, evaluation_digest, marked=is_marked(metrics))
        alias, reason = apply_gate(client, version, gate, person(root)), gate.reason
    number = str(version.version)
    links = run_link(recorded), version_link(name, number)
    return Registration(name, number, alias, reason, recorded.info.run_id, *links, new)


def _recorded_run(params: Params, root: Path, model_digest: str, evaluation_digest: str) -> Run:
    """The run of this model with this evaluation; written from DVC's outputs where MLflow has never seen it."""
    found = find_run(params.registry.experiment, model_digest)
    if found is not None and found.data.tags.get(EVALUATION_DIGEST_TAG) == evaluation_digest:
        return found
    with run_of_model(params, root) as tracker:
        describe_evaluation(tracker, root)
        return tracker.run


def _gate(
    params: Params, evaluation: Path, champion: ModelVersion | None, evaluation_digest: str, *, marked: bool
) -> GateResult:
    table = pd.read_parquet(evaluation / "generations.parquet")
    if champion is None:
        return judge(table, table.set_index("id")["base_reward"], "the base", params.evaluate, marked=marked)
    with tempfile.TemporaryDirectory() as scratch:
        rewards = rewards_of_version(champion, evaluation_digest, Path(scratch))
    return judge(table, rewards, f"champion version {champion.version}", params.evaluate, marked=marked)
