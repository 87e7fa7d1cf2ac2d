"""What all losses share: candidates in order of reward, absent candidates, and the counts that a mean divides by."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# The reward of a slot that holds no candidate: rows with fewer candidates than the batch's widest are filled with it.
ABSENT = -math.inf


class Totals(NamedTuple):
    """What the means of a loss divide by, counted over all micro-batches and processes of one optimiser step.

    Given to a loss, they make the losses of the micro-batches add up to the loss of the whole batch, whatever way the
    rows were divided. Add them up field by field: `+` joins named tuples end to end.

    Attributes:
        rows: number of rows, scalar.
        pairs: (n - 1,), pairs that train in CLHA's contrastive term, per rank distance 1..n-1. May be longer than a
            micro-batch's own n - 1.
        tokens: response tokens of the best candidates, scalar.
    """

    rows: Tensor
    pairs: Tensor
    tokens: Tensor


def rank_by_reward(rewards: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Sort candidates by descending reward, row by row; equal rewards keep their order, absent slots come last.

    Args:
        rewards: (batch, n).
        others: tensors of the same shape, put into the same order.

    Returns:
        `rewards` and `others`, sorted.
    """
    order = rewards.argsort(dim=1, descending=True, stable=True)
    return tuple(tensor.gather(1, order) for tensor in (rewards, *others))


def ranked_candidates(rewards: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """`rank_by_reward`, with the values of absent slots replaced by 0, so that no gradient ever reaches them.

    Raises:
        ValueError: shapes differ, or fewer than two slots.
    """
    shapes = {tuple(tensor.shape) for tensor in (rewards, *others)}
    if len(shapes) != 1 or rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"expected tensors of one shape (batch, n) with n >= 2, got {sorted(shapes)}")
    ranked_rewards, *ranked = rank_by_reward(rewards, *others)
    present = ranked_rewards > ABSENT
    return ranked_rewards, *(torch.where(present, tensor, 0) for tensor in ranked)


def present_pairs(rewards: Tensor, distance: int) -> Tensor:
    """True where ranks i and i + distance both hold a candidate.

    Args:
        rewards: (batch, n), each row descending.

    Returns:
        Boolean, (batch, n - distance).
    """
    return rewards[:, distance:] > ABSENT


def similar_pairs(rewards: Tensor, distance: int, reward_gap: float) -> Tensor:
    """The reward-similarity mask: True where a pair of ranks (i, i + distance) is too close in reward to train on.

    Never True where a slot of the pair is absent; the share of masked pairs is its sum over that of `present_pairs`.

    Args:
        rewards: (batch, n), each row descending.

    Returns:
        Boolean, (batch, n - distance).
    """
    return present_pairs(rewards, distance) & (rewards[:, :-distance] - rewards[:, distance:] <= reward_gap)


def trained_pairs(rewards: Tensor, distance: int, *, reward_gap: float, reward_mask: bool) -> Tensor:
    """The pairs of ranks (i, i + distance) that train: present, and with `reward_mask` not similar in reward.

    Args:
        rewards: (batch, n), each row descending.

    Returns:
        Boolean, (batch, n - distance).
    """
    present = present_pairs(rewards, distance)
    return present & ~similar_pairs(rewards, distance, reward_gap) if reward_mask else present


def row_count(rewards: Tensor) -> Tensor:
    """Number of rows, as a float scalar beside `rewards`; in fp32 or more, so that it stays exact."""
    dtype = torch.promote_types(rewards.dtype, torch.float32)
    return torch.full((), rewards.shape[0], dtype=dtype, device=rewards.device)


def batch_totals(rewards: Tensor, lengths: Tensor, *, reward_gap: float, reward_mask: bool = True) -> Totals:
    """Count one micro-batch for `Totals`.

    Args:
        rewards: (batch, n), in any order; ABSENT where there is no candidate.
        lengths: (batch, n), response tokens of each candidate.
        reward_gap, reward_mask: as given to `clha_loss`.

    Raises:
        ValueError: shapes differ, or fewer than two slots.
    """
    ranked_rewards, ranked_lengths = ranked_candidates(rewards, lengths)
    rows = row_count(rewards)
    pairs = [
        trained_pairs(ranked_rewards, distance, reward_gap=reward_gap, reward_mask=reward_mask).sum()
        for distance in range(1, rewards.shape[1])
    ]
    return Totals(rows, torch.stack(pairs).to(rows.dtype), ranked_lengths[:, 0].sum().to(rows.dtype))


def reward_gap_at_quantile(rewards: Tensor, quantile: float) -> float:
    """A reward gap from the data: the quantile of the reward differences between neighbouring ranks.

    Rewards of different models have different scales; the share of neighbouring pairs to mask does not depend on them.

    Args:
        rewards: (rows, n), in any order; ABSENT where there is no candidate.
        quantile: in [0, 1]; between two differences it is interpolated linearly.

    Returns:
        The gap, in units of the rewards.

    Raises:
        ValueError: a quantile outside of [0, 1], or rewards without a single pair.
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"expected a quantile between 0 and 1, got {quantile}")
    (ranked,) = ranked_candidates(rewards.double())
    differences = (ranked[:, :-1] - ranked[:, 1:])[present_pairs(ranked, 1)]
    if not len(differences):
        raise ValueError("expected rewards of at least one pair of candidates, got none")
    return differences.quantile(quantile).item()
