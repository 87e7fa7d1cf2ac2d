"""CLHA: "A Simple yet Effective Contrastive Learning Framework for Human Alignment", arXiv 2403.16649."""

from typing import NamedTuple

import torch
from torch import Tensor

from clha_core.losses.ranking import Totals, present_pairs, ranked_candidates, row_count, trained_pairs


class CLHALoss(NamedTuple):
    """`total` is what to call backward() on; it is `contrastive` + `sft`."""

    contrastive: Tensor
    sft: Tensor
    total: Tensor


def contrastive_loss(
    ranked_logps: Tensor,
    ranked_rewards: Tensor,
    *,
    margin: float,
    reward_gap: float,
    reward_mask: bool = True,
    scale_margin: bool = True,
    totals: Totals | None = None,
) -> Tensor:
    """Pairwise contrastive loss over ranked candidates, masked by reward similarity.

    For every rank distance d, the mean over the batch's unmasked pairs (i, i + d) of
    max(0, p_{i+d} - p_i + margin * d); the distances are summed. A distance with all pairs masked adds 0.

    Args:
        ranked_logps: (batch, n), best-rewarded candidate first.
        ranked_rewards: (batch, n), descending.
        margin, reward_gap, reward_mask, scale_margin, totals: as in `clha_loss`.

    Returns:
        Scalar.
    """
    loss = ranked_logps.new_zeros(())
    for distance in range(1, ranked_logps.shape[1]):
        wanted = margin * distance if scale_margin else margin
        hinge = (ranked_logps[:, distance:] - ranked_logps[:, :-distance] + wanted).clamp(min=0)
        trained = trained_pairs(ranked_rewards, distance, reward_gap=reward_gap, reward_mask=reward_mask)
        count = trained.sum() if totals is None else totals.pairs[distance - 1]
        loss = loss + torch.where(trained, hinge, 0.0).sum() / count.clamp(min=1)
    return loss


def adaptive_sft_loss(
    ranked_sum_logps: Tensor,
    ranked_rewards: Tensor,
    *,
    sft_weight: float,
    gate_sft: bool = True,
    totals: Totals | None = None,
) -> Tensor:
    """Negative log-likelihood of the best candidate, gated by its reward: a best answer rated <= 0 is not imitated.

    Summed over tokens, times sft_weight * (n - 1)**2 as in the authors' code, with n the row's own number of
    candidates; mean over all rows of the batch, those not imitated included.

    Args:
        ranked_sum_logps: (batch, n), log-probs summed over each response, best-rewarded candidate first.
        ranked_rewards: (batch, n), descending.
        sft_weight, gate_sft, totals: as in `clha_loss`.

    Returns:
        Scalar.
    """
    nll = -ranked_sum_logps[:, 0] * present_pairs(ranked_rewards, 1).sum(dim=1) ** 2
    if gate_sft:
        nll = torch.where(ranked_rewards[:, 0] > 0, nll, 0)
    return sft_weight * nll.sum() / (row_count(ranked_rewards) if totals is None else totals.rows)


def clha_loss(
    mean_logps: Tensor,
    sum_logps: Tensor,
    rewards: Tensor,
    *,
    margin: float = 3.0,
    reward_gap: float = 3.0,
    sft_weight: float = 0.05,
    reward_mask: bool = True,
    scale_margin: bool = True,
    gate_sft: bool = True,
    totals: Totals | None = None,
) -> CLHALoss:
    """CLHA: contrastive loss on `mean_logps` plus reward-gated SFT on `sum_logps`. Defaults are the paper's.

    Args:
        mean_logps: (batch, n), log-prob of each response given its prompt, averaged over the response's tokens.
        sum_logps: (batch, n), the same summed.
        rewards: (batch, n), in any order; higher is better; ABSENT where there is no candidate.
        margin: wanted log-prob difference per rank distance.
        reward_gap: pairs whose rewards differ by no more than this are masked.
        sft_weight: alpha, the weight of the SFT term.
        reward_mask: False trains on all pairs, however similar in reward.
        scale_margin: False wants `margin` at every rank distance.
        gate_sft: False imitates the best candidate also where its reward is <= 0.
        totals: counts of the whole step; None takes the means over this batch alone.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    ranked_rewards, ranked_means, ranked_sums = ranked_candidates(rewards, mean_logps, sum_logps)
    contrastive = contrastive_loss(
        ranked_means,
        ranked_rewards,
        margin=margin,
        reward_gap=reward_gap,
        reward_mask=reward_mask,
        scale_margin=scale_margin,
        totals=totals,
    )
    sft = adaptive_sft_loss(ranked_sums, ranked_rewards, sft_weight=sft_weight, gate_sft=gate_sft, totals=totals)
    return CLHALoss(contrastive, sft, contrastive + sft)
