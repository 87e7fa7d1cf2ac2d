"""The gate in front of the registry, and where a record says that a run comes from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, UNAUTHENTICATED

from clha_core.digest import folder_digest
from clha_core.errors import UserError
from clha_core.explain import sentence_for
from clha_core.tracking.lineage import FLOW_RUN_ID, locked_md5, origin_tags, project_home
from clha_core.tracking.mlflow_tracker import connect
from clha_core.tracking.record import comparable_figures, reward_model_figures, run_name
from clha_core.tracking.registry import judge

IDS = [f"row{index}" for index in range(60)]


def evaluated(shift: float, seed: int = 0) -> pd.DataFrame:
    rewards = np.random.default_rng(seed).normal(size=len(IDS)) + shift
    return pd.DataFrame({"id": IDS, "aligned_reward": rewards})


def opponent(seed: int = 1) -> pd.Series:
    return evaluated(0.0, seed).set_index("id")["aligned_reward"]


@pytest.mark.parametrize(("shift", "passed"), [(1.0, True), (0.0, False), (-1.0, False)])
def test_the_gate_opens_only_where_the_whole_interval_is_above_zero(
    make_params: Callable, shift: float, passed: bool
) -> None:
    gate = judge(evaluated(shift), opponent(), "champion version 1", make_params().evaluate)
    assert gate.passed is passed
    assert gate.difference is not None
    assert (gate.difference.low > 0) is passed
    assert "champion version 1" in gate.reason


def test_the_gate_pairs_prompts_by_id_not_by_position(make_params: Callable) -> None:
    same = opponent()
    shuffled = same.sample(frac=1.0, random_state=3)
    rewards = pd.DataFrame({"id": same.index, "aligned_reward": same.to_numpy() + 0.1})
    gate = judge(rewards, shuffled, "the base", make_params().evaluate)
    assert gate.difference is not None
    assert gate.difference.low == pytest.approx(0.1)


def test_rewards_on_other_prompts_are_not_compared(make_params: Callable) -> None:
    gate = judge(evaluated(5.0), opponent().iloc[1:], "champion version 1", make_params().evaluate)
    assert not gate.passed
    assert "--against-base" in gate.reason


def test_a_workspace_inside_a_checkout_belongs_to_that_checkout(tmp_path: Path) -> None:
    inner = tmp_path / ".clha" / "workspaces" / "run"
    inner.mkdir(parents=True)
    for folder in (tmp_path, inner):
        (folder / "dvc.yaml").touch()
    assert project_home(inner) == tmp_path
    assert project_home(tmp_path) == tmp_path


def test_md5s_are_read_from_the_lock(tmp_path: Path) -> None:
    assert locked_md5(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text("stages: {a: {outs: [{path: data/x, md5: abc.dir}]}}")
    assert locked_md5(tmp_path) == {"data/x": "abc.dir"}


def test_a_folders_digest_depends_on_names_and_bytes_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a").write_text("x")
    assert folder_digest(first) == folder_digest(second)
    (second / "sub" / "a").rename(second / "sub" / "b")
    assert folder_digest(first) != folder_digest(second)


def test_the_flow_run_is_a_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FLOW_RUN_ID, "1234")
    assert origin_tags(tmp_path) == {"prefect.flow_run_id": "1234"}


def test_runs_are_named_by_what_tells_them_apart(make_params: Callable) -> None:
    names = {
        run_name(make_params({"train.method": method, "train.margin": margin}))
        for method in ("clha", "sft", "pro")
        for margin in (1.0, 2.0)
    }
    assert len(names) == 4  # the margin means nothing to sft and pro


def test_bounds_of_intervals_are_recorded_for_the_total_only() -> None:
    part = {"reward": 1.0, "reward_low": 0.5, "reward_high": 1.5}
    both = {"total": part, "helpful": part}
    figures = comparable_figures({"aligned": both, "aligned_vs_base": both, "aligned_vs_sft": both, "base": both})
    assert "evaluate/total/reward_low" in figures
    assert "evaluate/helpful/reward_vs_sft" in figures
    assert not [name for name in figures if name.startswith("evaluate/helpful") and "_low" in name]


def test_the_record_has_how_well_reward_models_predict_unseen_labels() -> None:
    quality = {"accuracy": 0.7, "accuracy_low": 0.6, "pairs": 9.0, "log_loss": 0.5, "calibration_error": 0.1}
    assert reward_model_figures({"reward": {"validation": quality}}) == {
        "reward_models/reward/validation/accuracy": 0.7,
        "reward_models/reward/validation/log_loss": 0.5,
        "reward_models/reward/validation/calibration_error": 0.1,
    }


@pytest.mark.parametrize(
    ("code", "words"),
    [(PERMISSION_DENIED, "does not allow the account 'ana'"), (UNAUTHENTICATED, "does not let in the account 'ana'")],
)
def test_a_server_that_refuses_the_account_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ana")
    said = sentence_for(MlflowException("API request to /model-versions/set-tag failed", error_code=code))
    assert said is not None
    assert words in said
    assert "MLFLOW_TRACKING_PASSWORD" in said


def test_a_request_that_mlflow_finds_wrong_stays_a_traceback() -> None:
    assert sentence_for(MlflowException("no such tag", error_code=INVALID_PARAMETER_VALUE)) is None


def test_a_server_that_does_not_answer_stops_at_once_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(UserError, match="Start it"):
        connect(tmp_path, "clha")
