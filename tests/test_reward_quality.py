"""Accuracy and calibration of reward models against values by hand, and the page that shows them."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from clha_core.data.tables import SCHEMA, write_table
from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.reward_models.quality import label_quality, reliability
from clha_core.reward_models.report import write_reward_report
from clha_core.stages import reward_models

LOG_3 = math.log(3)  # sigma(log 3) = 0.75


def test_a_model_that_is_right_as_often_as_it_says_has_no_calibration_error() -> None:
    quality = label_quality(np.array([LOG_3, LOG_3, LOG_3, -LOG_3]))
    assert quality["accuracy"] == 0.75
    assert quality["calibration_error"] == pytest.approx(0, abs=1e-6)
    assert quality["log_loss"] == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4, abs=1e-6)


def test_a_model_that_is_too_sure_is_measured_by_how_much() -> None:
    quality = label_quality(np.array([LOG_3, -LOG_3, 20.0, 20.0]))
    assert quality["accuracy"] == 0.75
    assert quality["calibration_error"] == pytest.approx((2 * 0.25 + 2 * 0.0) / 4, abs=1e-6)


def test_the_interval_is_wilsons() -> None:
    quality = label_quality(np.array([1.0] * 7 + [-1.0] * 3))
    n, p, z = 10, 0.7, 1.959964
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert quality["accuracy_low"] == pytest.approx((centre - half) / (1 + z**2 / n), abs=1e-5)
    assert quality["accuracy_high"] == pytest.approx((centre + half) / (1 + z**2 / n), abs=1e-5)


def test_a_tie_predicts_nothing() -> None:
    quality = label_quality(np.array([0.0, 1.0]))
    assert quality["accuracy"] == 0.5
    assert label_quality(np.array([0.0]))["log_loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_reliability_bins_by_confidence_not_by_sign() -> None:
    table = reliability(np.array([LOG_3, -LOG_3, 0.1, 30.0]))
    assert table["pairs"].tolist() == [1, 2, 1]
    assert table["confidence"].tolist() == pytest.approx([1 / (1 + math.exp(-0.1)), 0.75, 1.0], abs=1e-6)
    assert table["accuracy"].tolist() == [1.0, 0.5, 1.0]


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=60))
def test_bins_hold_every_pair_and_errors_are_shares(values: list[float]) -> None:
    difference = np.array(values)
    assert reliability(difference)["pairs"].sum() == len(values)
    assert 0 <= label_quality(difference)["calibration_error"] <= 1


def written(out: Path) -> Path:
    generator = np.random.default_rng(0)
    differences = {("reward", "unseen_train"): generator.normal(1, 2, 300), ("eval_reward", "validation"): np.ones(5)}
    curves = {"reward, fold 1 of 2": pd.DataFrame({"step": [1, 2], "loss": [0.7, 0.6], "accuracy": [0.5, 0.7]})}
    write_reward_report(differences, curves, {"reward": [1.234, 0.9], "eval_reward": []}, out)
    return out


def test_the_report_shows_figures_reliability_and_curves(tmp_path: Path) -> None:
    out = written(tmp_path / "report")
    text = (out / "report.html").read_text()
    for words in ("Rescoring", "Train, unseen", "reward, fold 1 of 2", "1.23, 0.90", "Reliability"):
        assert words in text
    assert text.count("<svg") == 2 + 2
    assert "://" not in text.replace("http://www.w3.org", "")
    assert list(pd.read_csv(out / "curves.csv").columns) == ["model", "step", "loss", "accuracy"]
    assert set(pd.read_csv(out / "reliability.csv")["labels"]) == {"unseen_train", "validation"}


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_models_from_elsewhere_have_a_report_without_curves(tmp_path: Path) -> None:
    write_reward_report({("reward", "validation"): np.array([1.0, -1.0])}, {}, {}, tmp_path)
    assert "Training</h2>" not in (tmp_path / "report.html").read_text()
    assert pd.read_csv(tmp_path / "curves.csv").empty


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tiny.tokenizer()
    tiny.save(tiny.llama(made), made, tmp_path / "models/base")
    (tmp_path / "data/ingested").mkdir(parents=True)
    for split, count, seed in (("train", 40, 1), ("validation", 12, 2)):
        rows = [{name: row[name] for name in SCHEMA.names} for row in tiny.random_rows(count, seed=seed)]
        write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / f"data/ingested/{split}.parquet")
    return tmp_path


def test_the_stage_trains_both_models_on_different_halves(make_params: Callable[..., Params], project: Path) -> None:
    (project / "models/reward/fold-7").mkdir(parents=True)  # of an earlier training with more folds
    reward_models.run(make_params({"reward_model.train.folds": 2, "reward_model.train.max_steps": 2}), project)

    assert {path.name for path in (project / "models/reward").iterdir()} == {"fold-0", "fold-1", "folds.json"}
    assert (project / "models/eval_reward/model.safetensors").exists()
    metrics = json.loads((project / "metrics/reward_models.json").read_text())
    assert metrics["reward"]["validation"]["pairs"] == metrics["eval_reward"]["validation"]["pairs"] == 12
    halves = [metrics[name]["unseen_train"]["pairs"] for name in ("reward", "eval_reward")]
    # What the rescoring model cross-fits on is what the other one has not seen.
    assert halves[0] == halves[1] < 40
    models = set(pd.read_csv(project / "reports/reward_models/curves.csv")["model"])
    assert models == {"reward, fold 1 of 2", "reward, fold 2 of 2", "eval_reward"}


def test_a_model_from_elsewhere_is_pinned_and_the_trained_one_learns_from_all(
    make_params: Callable[..., Params], project: Path
) -> None:
    made = tiny.tokenizer()
    judge = tiny.save(tiny.llama_reward(made), made, project / "judge")
    reward_models.run(
        make_params(
            {
                "reward_model.eval_model": str(judge),
                "reward_model.eval_text_format": "hh",
                "reward_model.train.folds": 2,
                "reward_model.train.max_steps": 1,
                "reward_model.train.gradient_checkpointing": True,
                "policy.dtype": "bfloat16",
                "reward_model.dtype": "bfloat16",
            }
        ),
        project,
    )
    weights = load_file(project / "models/reward/fold-1/model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert (project / "models/eval_reward/pointer.json").exists()
    metrics = json.loads((project / "metrics/reward_models.json").read_text())
    assert metrics["reward"]["unseen_train"]["pairs"] == 40
    assert set(metrics["eval_reward"]) == {"validation"}


def test_the_stage_refuses_one_model_in_both_places(make_params: Callable[..., Params], project: Path) -> None:
    made = tiny.tokenizer()
    judge = str(tiny.save(tiny.llama_reward(made), made, project / "judge"))
    both = {"reward_model.model": judge, "reward_model.eval_model": judge, "reward_model.dtype": "float32"}
    both |= {"reward_model.text_format": "hh", "reward_model.eval_text_format": "hh"}
    with pytest.raises(UserError, match=r"reward_model\.eval_model"):
        reward_models.run(make_params(both), project)
    reward_models.run(make_params(both | {"reward_model.allow_same_eval_model": True}), project)
    assert (project / "metrics/reward_models.json").exists()
