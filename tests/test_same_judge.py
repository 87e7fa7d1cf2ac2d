"""A policy is not judged by the reward model that taught it, unless that is asked for; then every figure says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_evaluation_report import SYSTEMS, Page, answers

from clha_core.errors import UserError
from clha_core.evaluation.report import write_report
from clha_core.evaluation.summary import JUDGE, RATED_TRAINING_DATA, summarise
from clha_core.evaluation.table import summary_markdown
from clha_core.models.loading import POINTER, write_pointer
from clha_core.reward_models.identity import judge_rated_training_data
from clha_core.stages import evaluate


def checkpoint(folder: Path, weight: float, name: str = "model") -> Path:
    folder.mkdir(parents=True)
    save_file({"weight": np.full(3, weight)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"name_or_path": name}), encoding="utf-8")
    return folder


def hub_pointer(folder: Path, model: str, revision: str) -> Path:
    folder.mkdir(parents=True)
    (folder / POINTER).write_text(json.dumps({"model": model, "revision": revision}), encoding="utf-8")
    return folder


def test_models_with_different_weights_are_two(tmp_path: Path) -> None:
    reward, other = checkpoint(tmp_path / "reward", 1.0), checkpoint(tmp_path / "other", 2.0)
    assert judge_rated_training_data(reward, other, allowed=False) is False


def test_the_same_weights_under_another_name_are_refused(tmp_path: Path) -> None:
    reward, copy = checkpoint(tmp_path / "reward", 1.0), checkpoint(tmp_path / "copy", 1.0, name="renamed")
    with pytest.raises(UserError, match="allow_same_eval_model"):
        judge_rated_training_data(reward, copy, allowed=False)
    assert judge_rated_training_data(reward, copy, allowed=True) is True


def test_a_pointer_is_the_model_that_it_points_to(tmp_path: Path) -> None:
    reward = checkpoint(tmp_path / "reward", 1.0)
    write_pointer(str(shutil.copytree(reward, tmp_path / "elsewhere")), None, tmp_path / "pointer")
    with pytest.raises(UserError, match="rates the training data"):
        judge_rated_training_data(reward, tmp_path / "pointer", allowed=False)


@pytest.mark.parametrize(("revision", "same"), [("abc", True), ("def", False)])
def test_models_of_the_hub_are_told_apart_by_their_commit(tmp_path: Path, revision: str, same: bool) -> None:
    reward, other = hub_pointer(tmp_path / "a", "org/rm", "abc"), hub_pointer(tmp_path / "b", "org/rm", revision)
    assert judge_rated_training_data(reward, other, allowed=True) is same


def test_one_fold_of_the_rescoring_models_is_enough_to_be_the_same(tmp_path: Path) -> None:
    for fold in range(3):
        checkpoint(tmp_path / "reward" / f"fold-{fold}", float(fold))
    judge = checkpoint(tmp_path / "judge", 2.0)
    assert judge_rated_training_data(tmp_path / "reward", judge, allowed=True) is True


@pytest.mark.parametrize("marked", [False, True])
def test_a_report_by_the_same_judge_says_so(make_params: Callable[..., Any], tmp_path: Path, marked: bool) -> None:
    params = make_params({"evaluate.bootstrap_samples": 100})
    metrics = summarise(answers(), SYSTEMS, params.evaluate) | {JUDGE: {RATED_TRAINING_DATA: marked}}
    page = Page(write_report(answers(), metrics, None, params, tmp_path)).text
    assert ("Not independent." in page) is marked
    for text in (page, summary_markdown(metrics, "clha")):
        assert ("Training reward" in text) is marked
        assert ("Evaluation reward" in text) is not marked


def test_nothing_is_answered_for_a_judge_that_rated_the_training_data(
    make_params: Callable[..., Any], tmp_path: Path
) -> None:
    for name in ("reward", "eval_reward"):
        checkpoint(tmp_path / "models" / name, 1.0)
    with pytest.raises(UserError, match=r"reward_model\.eval_model"):
        evaluate.run(make_params(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]
