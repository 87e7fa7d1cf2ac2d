"""Two systems of different runs, prompt by prompt."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from test_evaluation_report import Page, answers

from clha_core.comparison.compare import Evaluation, Side, compare
from clha_core.comparison.page import comparison_page
from clha_core.comparison.table import comparison_markdown, comparison_table, verdict
from clha_core.errors import UserError
from clha_core.params import EvaluateParams

PROTOCOL = {"prompts": "aa", "judge": "bb", "max_new_tokens": 64, "judge_text_format": "hh"}


@pytest.fixture(scope="module")
def evaluate(make_params: Callable[..., Any]) -> EvaluateParams:
    return make_params({"evaluate.bootstrap_samples": 100}).evaluate


def evaluation(name: str, table: pd.DataFrame | None = None, *, marked: bool = False, **protocol: Any) -> Evaluation:
    return Evaluation(name, answers() if table is None else table, PROTOCOL | protocol, marked)


def better_by(shift: float) -> pd.DataFrame:
    table = answers()
    return table.assign(aligned_reward=table["aligned_reward"] + shift)


def test_prompts_are_paired_by_id_not_by_position(evaluate: EvaluateParams) -> None:
    shuffled = better_by(-0.5).sample(frac=1.0, random_state=3).reset_index(drop=True)
    versus = compare(Side(evaluation("new")), Side(evaluation("old", shuffled)), evaluate).metrics["A_vs_B"]
    for bound in ("", "_low", "_high"):
        assert versus["total"][f"reward_difference{bound}"] == pytest.approx(0.5)
    assert versus["helpful-base"]["win"] == 1.0


@settings(max_examples=8)
@given(rewards=st.lists(st.floats(-5, 5), min_size=12, max_size=12))
def test_a_against_b_is_b_against_a_turned_round(evaluate: EvaluateParams, rewards: list[float]) -> None:
    one, other = Side(evaluation("one")), Side(evaluation("other", answers().assign(aligned_reward=rewards)))
    there, back = (compare(*sides, evaluate).metrics["A_vs_B"] for sides in ((one, other), (other, one)))
    for subset, measures in there.items():
        for measure in ("reward_difference", "reward_sigmoid_x100_difference"):
            assert measures[measure] == pytest.approx(-back[subset][measure], abs=2e-6)
        assert (measures["win"], measures["lose"]) == (back[subset]["lose"], back[subset]["win"])


def test_a_total_difference_is_the_sample_weighted_mean_of_the_subsets(evaluate: EvaluateParams) -> None:
    sft = Side(evaluation("one"), "sft")
    versus = compare(Side(evaluation("one")), sft, evaluate).metrics["A_vs_B"]
    for name in ("reward_difference", "reward_sigmoid_x100_difference", "gold_difference", "win_rate"):
        weighted = (4 * versus["harmless-base"][name] + 8 * versus["helpful-base"][name]) / 12
        assert versus["total"][name] == pytest.approx(weighted, abs=2e-6), name


@pytest.mark.parametrize("system", ["base", "sft", "human"])
def test_every_system_of_an_evaluation_can_be_a_side(evaluate: EvaluateParams, system: str) -> None:
    comparison = compare(Side(evaluation("one")), Side(evaluation("two"), system), evaluate)
    column = "human_chosen_reward" if system == "human" else f"{system}_reward"
    expected = (answers()["aligned_reward"] - answers()[column]).mean()
    assert comparison.metrics["A_vs_B"]["total"]["reward_difference"] == pytest.approx(expected)
    assert "two" in comparison.sentences()[1]
    # The human's answers are what BLEU is measured against.
    assert ("BLEU" in comparison_markdown(comparison)) is (system != "human")


def test_a_system_that_did_not_answer_names_those_that_did() -> None:
    with pytest.raises(UserError, match="base, sft, aligned, human"):
        Side(evaluation("one"), "rlhf")


def test_evaluations_that_are_not_alike_are_not_compared_and_what_differs_is_named(evaluate: EvaluateParams) -> None:
    other = Side(evaluation("old", max_new_tokens=128, judge="cc"))
    with pytest.raises(UserError) as refused:
        compare(Side(evaluation("new")), other, evaluate)
    message = str(refused.value)
    assert "evaluate.max_new_tokens: 64 for new, 128 for old" in message
    assert "reward_model.eval_model" in message
    assert "reward_model.eval_text_format" not in message
    assert "dvc repro evaluate" in message


@pytest.mark.parametrize(
    ("shift", "words"), [(1.0, "A is better"), (-1.0, "B is better"), (0.0, "Neither is shown to be better")]
)
def test_the_verdict_needs_the_whole_interval(evaluate: EvaluateParams, shift: float, words: str) -> None:
    rng = np.random.default_rng(0)
    noisy = better_by(shift).assign(aligned_reward=lambda t: t["aligned_reward"] + 0.1 * rng.normal(size=len(t)))
    assert words in verdict(compare(Side(evaluation("a", noisy)), Side(evaluation("b")), evaluate))


def test_a_judge_that_rated_the_training_data_of_one_side_is_named(evaluate: EvaluateParams) -> None:
    comparison = compare(Side(evaluation("a")), Side(evaluation("b", marked=True)), evaluate)
    assert comparison.sentences()[2].startswith("Not independent")
    assert comparison.sentences()[2].endswith("of B.")
    assert "Training reward" in comparison_markdown(comparison)


def test_the_table_has_every_subset_within_80_columns(evaluate: EvaluateParams) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(comparison_table(compare(Side(evaluation("a", better_by(2.0))), Side(evaluation("b")), evaluate)))
    text = console.export_text()
    for words in ("harmless-base (4)", "helpful-base (8)", "All subsets (12)", "+2.000 [+2.000, +2.000]"):
        assert words in text


def test_the_page_shows_both_answers_of_every_prompt(evaluate: EvaluateParams, tmp_path: Path) -> None:
    old = answers().assign(aligned_response="an older answer")
    comparison = compare(Side(evaluation("new")), Side(evaluation("old", old)), evaluate)
    page = Page(comparison_page(comparison, evaluate, tmp_path / "page.html"))
    assert page.tags.count("article") == 12
    assert page.text.count("an older answer") == 12
    assert "The answer to question number 3 is aligned." in page.text
    assert "params.yaml" not in page.text
