"""The model registry and the gate in front of its alias `champion`. Who becomes champion is promotion.py's."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from clha_core.evaluation.metrics import Interval, paired_bootstrap_difference
from clha_core.evaluation.summary import NOT_INDEPENDENT
from clha_core.params import EvaluateParams
from clha_core.tracking import flavour
from clha_core.tracking.lineage import EVALUATION_DIGEST_TAG, MODEL_DIGEST_TAG
from clha_core.tracking.mlflow_tracker import reopened_run

if TYPE_CHECKING:  # they take seconds to import, and looking at the registry needs neither
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from clha_core.serving.source import PolicySettings

CHAMPION, CANDIDATE = "champion", "candidate"
GENERATIONS = "evaluation/generations.parquet"


@dataclass(frozen=True)
class GateResult:
    """Whether a model may become champion, over whom, and by how much (evaluation reward per prompt)."""

    opponent: str
    difference: Interval | None
    reason: str

    @property
    def passed(self) -> bool:
        return self.difference is not None and self.difference.low > 0


def judge(
    rewards: pd.DataFrame,
    opponent_rewards: pd.Series | None,
    opponent: str,
    params: EvaluateParams,
    *,
    marked: bool = False,
) -> GateResult:
    """Paired bootstrap of the evaluation rewards; better means that the whole interval is above zero.

    Args:
        rewards: columns `id` and `aligned_reward` of the model at the gate.
        opponent_rewards: rewards of the opponent indexed by prompt id; None if it was not evaluated like this.
        marked: the judge is the reward model that rated the training data; the reason says so.
    """
    ids = rewards["id"]
    if opponent_rewards is None or set(opponent_rewards.index) != set(ids):
        reason = (
            f"{opponent} has no evaluation in MLflow, or one on other prompts or by another reward model, so the two "
            "cannot be compared: evaluate it again, or judge this model against the base (clha register --against-base)"
        )
        return GateResult(opponent, None, reason)
    difference = paired_bootstrap_difference(
        rewards["aligned_reward"].to_numpy(),
        opponent_rewards.loc[ids].to_numpy(),
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )
    verb = "better than" if difference.low > 0 else "not shown to be better than"
    reason = f"{verb} {opponent}, reward {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    if marked:
        reason += f"; not independent, the judge is {NOT_INDEPENDENT}"
    return GateResult(opponent, difference, reason)


def champion_of(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version with the alias champion, if there is one."""
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if is_absent(error):
            return None
        raise


def is_absent(error: MlflowException) -> bool:
    """Whether a request failed because the model or alias does not exist, and not because the server is in trouble."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or "not found" in str(error)


def run_of(client: MlflowClient, version: ModelVersion) -> Run | None:
    """The training run of a version; None where it was registered by hand, or its run is gone for good.

    A run that was deleted in MLflow's pages is there until `mlflow gc`, and can be read.
    """
    try:
        return client.get_run(version.run_id) if version.run_id else None
    except MlflowException as error:
        if is_absent(error):
            return None
        raise


def rewards_of_version(version: ModelVersion, evaluation_digest: str, scratch: Path) -> pd.Series | None:
    """Per-prompt rewards of a registered version; None if it was not evaluated by the same protocol, or its run or
    the run's files are gone."""
    client = MlflowClient()
    run = run_of(client, version)
    if run is None or run.data.tags.get(EVALUATION_DIGEST_TAG) != evaluation_digest:
        return None
    recorded = client.list_artifacts(run.info.run_id, str(PurePosixPath(GENERATIONS).parent))
    if GENERATIONS not in [artifact.path for artifact in recorded]:
        return None
    local = client.download_artifacts(run.info.run_id, GENERATIONS, str(scratch))
    table = pd.read_parquet(local, columns=["id", "aligned_reward"])
    return table.set_index("id")["aligned_reward"]


def version_of(client: MlflowClient, name: str, model_digest: str) -> ModelVersion | None:
    """The version that holds exactly this model, so that registering twice adds nothing."""
    versions = client.search_model_versions(f"name = '{name}' and tags.`{MODEL_DIGEST_TAG}` = '{model_digest}'")
    return max(versions, key=lambda version: int(version.version), default=None)


def add_version(
    run: Run,
    name: str,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    settings: "PolicySettings",
    model_digest: str,
) -> ModelVersion:
    """Log a model to its training run in our flavour and register it."""
    with reopened_run(run.info.run_id), no_hub():
        info = Model.log(
            None,
            flavour,
            name="model",
            registered_model_name=name,
            model=model,
            tokenizer=tokenizer,
            settings=settings,
        )
    client = MlflowClient()
    number = str(info.registered_model_version)
    client.set_model_version_tag(name, number, MODEL_DIGEST_TAG, model_digest)
    return client.get_model_version(name, number)


@contextmanager
def no_hub() -> Iterator[None]:
    """Keep MLflow from asking the hub for the card and licence of a model that never was there (half a minute)."""
    import huggingface_hub

    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before
