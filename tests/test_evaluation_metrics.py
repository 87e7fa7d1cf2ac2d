"""Metrics against values worked out by hand, and the properties they must have."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clha_core.evaluation.metrics import (
    Interval,
    bootstrap_interval,
    character_bleu_reference,
    corpus_bleu,
    paired_bootstrap_difference,
    sigmoid_x100,
    win_rate,
)

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "samples": 200, "seed": 3}
rewards = st.floats(-50, 50)
paired_rewards = st.lists(st.tuples(rewards, rewards), min_size=1, max_size=30)


def test_corpus_bleu_of_one_sentence_by_hand() -> None:
    # 5/6 words, 3/5 pairs, 2/4 triples and 1/3 quadruples are in the reference, and the lengths are equal.
    expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert corpus_bleu(["the cat sat on the mat"], ["the cat sat on a mat"]) == pytest.approx(expected)


def test_character_bleu_is_bleu_over_characters() -> None:
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert character_bleu_reference(["abcde"], ["abcdf"]) == pytest.approx(expected)


def test_character_bleu_counts_blanks() -> None:
    # Three letters alone have no sequence of four, so they would give zero.
    assert character_bleu_reference(["a b c"], ["a b c"]) == pytest.approx(100)


def test_character_bleu_is_averaged_over_answers() -> None:
    assert character_bleu_reference(["abcdefgh", "wxyz"], ["abcdefgh", "abcd"]) == pytest.approx(50)


def test_an_empty_answer_has_no_bleu() -> None:
    assert corpus_bleu([""], ["the cat sat on a mat"]) == 0
    assert character_bleu_reference([""], ["the cat"]) == 0


@pytest.mark.parametrize("bleu", [corpus_bleu, character_bleu_reference])
@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], ["a", "b"])])
def test_bleu_refuses_texts_that_do_not_pair_up(bleu, hypotheses, references) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="pair up"):
        bleu(hypotheses, references)


def test_bootstrap_interval_agrees_with_the_t_interval_on_normal_data() -> None:
    values = np.random.default_rng(0).normal(2, 3, 400)
    low, high = stats.t.interval(0.9, len(values) - 1, loc=values.mean(), scale=stats.sem(values))

    interval = bootstrap_interval(values, confidence=0.9, samples=4000, seed=1)

    assert interval.mean == values.mean()
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.03)


@settings(max_examples=50, deadline=None)
@given(st.lists(rewards, min_size=1, max_size=30))
def test_bootstrap_interval_surrounds_the_mean_and_stays_within_the_data(values: list[float]) -> None:
    interval = bootstrap_interval(values, **BOOTSTRAP)
    slack = 1e-9
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
    assert interval.mean == pytest.approx(np.mean(values))


def test_bootstrap_interval_repeats_with_its_seed_and_only_with_it() -> None:
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (bootstrap_interval(values, confidence=0.95, samples=200, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("values", [[0.25], [0.25, 0.25, 0.25]])
def test_values_without_spread_have_an_interval_of_width_zero(values: list[float]) -> None:
    assert bootstrap_interval(values, **BOOTSTRAP) == Interval(0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [1.0, float("inf")], [[1.0, 2.0]]])
def test_bootstrap_interval_refuses_what_is_no_row_of_numbers(values: list) -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval(values, **BOOTSTRAP)


def test_a_paired_difference_knows_that_prompts_are_shared() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 10, 200)
    a, b = difficulty + 1 + rng.normal(0, 0.1, 200), difficulty + rng.normal(0, 0.1, 200)

    difference = paired_bootstrap_difference(a, b, **BOOTSTRAP)

    assert 0.9 < difference.low < difference.mean < difference.high < 1.1


def test_win_rate_counts_ties_half() -> None:
    result = win_rate([1.0, 2.0, 0.0, 0.0], [0.0, 2.0, 3.0, 4.0], **BOOTSTRAP)
    assert (result.win, result.tie, result.lose, result.rate.mean) == (0.25, 0.25, 0.5, 0.375)
    assert 0 <= result.rate.low < 0.375 < result.rate.high <= 1


@settings(max_examples=50, deadline=None)
@given(paired_rewards)
def test_what_one_side_wins_the_other_loses(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    ab, ba = win_rate(a, b, **BOOTSTRAP), win_rate(b, a, **BOOTSTRAP)
    assert (ab.win, ab.tie, ab.lose) == (ba.lose, ba.tie, ba.win)
    assert ab.win + ab.tie + ab.lose == pytest.approx(1)
    assert ab.rate.mean == pytest.approx(1 - ba.rate.mean)


@pytest.mark.parametrize("compare", [win_rate, paired_bootstrap_difference])
def test_comparisons_refuse_sides_of_different_length(compare) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="2 and 1 values"):
        compare([1.0, 2.0], [1.0], **BOOTSTRAP)


def test_sigmoid_x100_is_the_mean_of_sigmoids_not_the_sigmoid_of_the_mean() -> None:
    assert sigmoid_x100([0.0, np.log(3)]) == pytest.approx((50 + 75) / 2)
    assert sigmoid_x100([-1000.0, 1000.0]) == pytest.approx(50)
