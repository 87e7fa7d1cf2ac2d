"""The length control: what is left of a win rate when both answers are of one length."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from clha_core.judging.length import length_controlled_win_rate, length_report
from clha_core.params import EvaluateParams


@pytest.fixture(scope="module")
def params(make_params: Callable) -> EvaluateParams:
    return make_params({"evaluate.bootstrap_samples": 100}).evaluate


def simulated(quality: float, pull: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of a judge with a pull towards length, and length differences; answers are mostly longer."""
    rng = np.random.default_rng(0)
    difference = rng.normal(60, 100, size=count)
    wins = rng.random(count) < expit(quality + pull * np.tanh(difference / difference.std()))
    return np.where(wins, 1, -1), difference


@pytest.mark.parametrize("quality", [-0.7, 0.0, 0.7])
def test_a_pull_towards_length_is_taken_out(quality: float) -> None:
    outcomes, difference = simulated(quality, pull=1.5)
    assert (outcomes > 0).mean() > expit(quality) + 0.05  # what the pull adds
    assert length_controlled_win_rate(outcomes, difference) == pytest.approx(expit(quality), abs=0.03)


def test_without_a_pull_it_is_the_win_rate() -> None:
    outcomes, difference = simulated(0.5, pull=0.0)
    assert length_controlled_win_rate(outcomes, difference) == pytest.approx((outcomes > 0).mean(), abs=0.02)


def test_a_judge_of_length_alone_knows_no_winner() -> None:
    difference = np.array([50, -50, 30, -30, 80, -80])
    assert length_controlled_win_rate(np.sign(difference), difference) == pytest.approx(0.5, abs=1e-3)


@given(
    st.lists(st.tuples(st.sampled_from((-1, 0, 1)), st.integers(-500, 500)), min_size=1, max_size=20),
)
def test_it_is_a_rate_and_turns_with_the_sides(pairs: list[tuple[int, int]]) -> None:
    signs, differences = np.array(pairs).T
    rate = length_controlled_win_rate(signs, differences)
    assert 0 <= rate <= 1
    assert length_controlled_win_rate(-signs, -differences) == pytest.approx(1 - rate, abs=5e-3)


def test_only_wins_stay_only_wins() -> None:
    assert length_controlled_win_rate([1, 1, 1], [5, -5, 100]) == 1


def test_win_rates_are_given_by_length(params: EvaluateParams) -> None:
    report = length_report([1, 1, -1, 0, 0], [200, 190, 50, 100, 100], [100, 100, 100, 105, 100], params)
    assert {name: m["pairs"] for name, m in report["by_length"].items()} == {"longer": 2, "similar": 2, "shorter": 1}
    assert report["by_length"]["longer"]["win_rate"] == 1
    assert report["longer_wins"]["share"] == 1
    assert (report["mean_length"], report["mean_other_length"]) == (128, 101)


def test_the_interval_holds_the_controlled_rate(params: EvaluateParams) -> None:
    outcomes, difference = simulated(0.5, pull=1.0, count=200)
    report = length_report(outcomes, 1000 + difference, np.full(200, 1000.0), params)
    low, rate, high = (report[f"length_controlled_win_rate{end}"] for end in ("_low", "", "_high"))
    assert low < rate < high
    assert high - low < 0.3
    assert report == length_report(outcomes, 1000 + difference, np.full(200, 1000.0), params)


def test_without_a_decided_pair_longer_does_not_win(params: EvaluateParams) -> None:
    assert length_report([0, 1], [10, 20], [30, 20], params)["longer_wins"] is None
