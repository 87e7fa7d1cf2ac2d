"""What the losses share: ranks, masks, counts, and a reward gap from the data."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import float64, random_batch

from clha_core.losses import (
    ABSENT,
    batch_totals,
    present_pairs,
    rank_by_reward,
    reward_gap_at_quantile,
    similar_pairs,
)


def test_candidates_are_ranked_by_descending_reward_and_absent_ones_come_last() -> None:
    rewards = float64([[1.0, ABSENT, 3.0, 2.0]])
    ranked, slots = rank_by_reward(rewards, torch.arange(4).unsqueeze(0))
    assert ranked.tolist() == [[3.0, 2.0, 1.0, ABSENT]]
    assert slots.tolist() == [[2, 3, 0, 1]]


def test_equal_rewards_keep_their_order() -> None:
    _, slots = rank_by_reward(float64([[1.0, 2.0, 1.0, 2.0]]), torch.arange(4).unsqueeze(0))
    assert slots.tolist() == [[1, 3, 0, 2]]


def test_a_pair_is_similar_up_to_and_including_the_gap() -> None:
    ranked = float64([[5.0, 3.0, 2.9]])
    assert similar_pairs(ranked, 1, reward_gap=2.0).tolist() == [[True, True]]
    assert similar_pairs(ranked, 2, reward_gap=2.0).tolist() == [[False]]


@pytest.mark.parametrize("reward_gap", [0.0, math.inf])
def test_a_pair_with_an_absent_slot_is_neither_present_nor_similar(reward_gap: float) -> None:
    ranked = float64([[5.0, 5.0, ABSENT, ABSENT]])
    assert present_pairs(ranked, 1).tolist() == [[True, False, False]]
    assert similar_pairs(ranked, 1, reward_gap).tolist() == [[True, False, False]]
    assert similar_pairs(ranked, 2, reward_gap).tolist() == [[False, False]]


def test_totals_count_rows_unmasked_pairs_per_distance_and_tokens_of_the_best() -> None:
    rewards = float64([[1.0, 9.0, 5.0], [ABSENT, 0.0, 1.0]])
    lengths = torch.tensor([[10, 20, 30], [999, 5, 7]])
    totals = batch_totals(rewards, lengths, reward_gap=3.0)
    assert totals.rows.item() == 2
    assert totals.pairs.tolist() == [2, 1]
    assert totals.tokens.item() == 20 + 7


def test_totals_without_a_reward_mask_count_all_present_pairs() -> None:
    rewards = float64([[1.0, 9.0, 5.0], [ABSENT, 0.0, 1.0]])
    totals = batch_totals(rewards, torch.ones(2, 3), reward_gap=3.0, reward_mask=False)
    assert totals.pairs.tolist() == [3, 1]


def test_totals_of_rewards_in_half_precision_are_exact() -> None:
    rewards = torch.tensor([[4.0, 0.0]], dtype=torch.bfloat16).repeat(1001, 1)
    totals = batch_totals(rewards, torch.full((1001, 2), 3), reward_gap=1.0)
    assert (totals.rows.item(), totals.pairs.tolist(), totals.tokens.item()) == (1001, [1001], 3003)


def test_the_gap_at_a_quantile_is_taken_between_neighbouring_ranks_of_present_candidates() -> None:
    # differences 1 and 4, then 2
    rewards = float64([[0.0, 4.0, 5.0], [3.0, ABSENT, 1.0]])
    assert reward_gap_at_quantile(rewards, 0.0) == 1.0
    assert reward_gap_at_quantile(rewards, 0.5) == 2.0
    assert reward_gap_at_quantile(rewards, 0.75) == 3.0
    assert reward_gap_at_quantile(rewards, 1.0) == 4.0


@given(seed=st.integers(0, 1000), quantile=st.floats(0, 1), scale=st.floats(0.01, 100))
def test_the_gap_at_a_quantile_scales_with_the_rewards(seed: int, quantile: float, scale: float) -> None:
    rewards = random_batch(seed, 8, 4).rewards
    gap = reward_gap_at_quantile(rewards, quantile)
    assert reward_gap_at_quantile(rewards * scale - 7, quantile) == pytest.approx(gap * scale, abs=1e-9)


@given(seed=st.integers(0, 1000), quantile=st.floats(0, 1))
def test_the_gap_at_a_quantile_masks_that_share_of_pairs(seed: int, quantile: float) -> None:
    rewards = random_batch(seed, 20, 4).rewards
    (ranked,) = rank_by_reward(rewards)
    masked = similar_pairs(ranked, 1, reward_gap_at_quantile(rewards, quantile)).sum().item()
    pairs = present_pairs(ranked, 1).sum().item()
    assert abs(masked - quantile * pairs) <= 1


@pytest.mark.parametrize("quantile", [-0.1, 1.1, math.nan])
def test_a_quantile_outside_of_0_to_1_is_refused(quantile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        reward_gap_at_quantile(float64([[1.0, 2.0]]), quantile)


def test_rewards_without_a_pair_have_no_gap() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        reward_gap_at_quantile(torch.zeros(0, 2), 0.5)
