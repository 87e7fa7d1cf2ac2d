"""The losses: pure functions of log-probs and rewards.

Shapes: every input is (batch, n), n >= 2 candidates a row. `rewards` come from a reward model; rows need not be
sorted, the losses rank the candidates themselves. Outputs are scalars (0-dimensional tensors).

Paper: "CLHA: A Simple yet Effective Contrastive Learning Framework for Human Alignment", arXiv 2403.16649.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Added inside PRO's logarithm by its authors' code; without it the golden values differ in the fifth digit.
PRO_EPSILON = 1e-10


class CLHALoss(NamedTuple):
    """`total` is what to call backward() on; it is `contrastive` + `sft`."""

    contrastive: Tensor
    sft: Tensor
    total: Tensor


def rank_by_reward(rewards: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Sort candidates by descending reward, row by row; equal rewards keep their order.

    Args:
        rewards: (batch, n).
        others: tensors of the same shape, put into the same order.

    Returns:
        `rewards` and `others`, sorted.
    """
    order = rewards.argsort(dim=1, descending=True, stable=True)
    return tuple(tensor.gather(1, order) for tensor in (rewards, *others))


def similar_pairs(rewards: Tensor, distance: int, reward_gap: float) -> Tensor:
    """The reward-similarity mask: True where a pair of ranks (i, i + distance) is too close in reward to train on.

    Args:
        rewards: (batch, n), each row descending.

    Returns:
        Boolean, (batch, n - distance).
    """
    return rewards[:, :-distance] - rewards[:, distance:] <= reward_gap


def contrastive_loss(ranked_logps: Tensor, ranked_rewards: Tensor, *, margin: float, reward_gap: float) -> Tensor:
    """Pairwise contrastive loss over ranked candidates, masked by reward similarity.

    For every rank distance d, the mean over the batch's unmasked pairs (i, i + d) of
    max(0, p_{i+d} - p_i + margin * d); the distances are summed. A distance with all pairs masked adds 0.

    Args:
        ranked_logps: (batch, n), best-rewarded candidate first.
        ranked_rewards: (batch, n), descending.
    """
    loss = ranked_logps.new_zeros(())
    for distance in range(1, ranked_logps.shape[1]):
        hinge = (ranked_logps[:, distance:] - ranked_logps[:, :-distance] + margin * distance).clamp(min=0)
        trained = ~similar_pairs(ranked_rewards, distance, reward_gap)
        loss = loss + torch.where(trained, hinge, 0.0).sum() / trained.sum().clamp(min=1)
    return loss


def adaptive_sft_loss(ranked_sum_logps: Tensor, ranked_rewards: Tensor, *, sft_weight: float) -> Tensor:
    """Negative log-likelihood of the best candidate, gated by its reward: a best answer rated <= 0 is not imitated.

    Summed over tokens, mean over the batch, times sft_weight * (n - 1)**2 as in the authors' code.

    Args:
        ranked_sum_logps: (batch, n), log-probs summed over each response, best-rewarded candidate first.
        ranked_rewards: (batch, n), descending.
    """
    imitated = ranked_rewards[:, 0] > 0
    nll = torch.where(imitated, -ranked_sum_logps[:, 0], 0.0).mean()
    return sft_weight * (ranked_rewards.shape[1] - 1) ** 2 * nll


def clha_loss(
    mean_logps: Tensor,
    sum_logps: Tensor,
    rewards: Tensor,
    *,
    margin: float = 3.0,
    reward_gap: float = 3.0,
    sft_weight: float = 0.05,
) -> CLHALoss:
    """CLHA: contrastive loss on `mean_logps` plus reward-gated SFT on `sum_logps`. Defaults are the paper's.

    Args:
        mean_logps: (batch, n), log-prob of each response given its prompt, averaged over the response's tokens.
        sum_logps: (batch, n), the same summed.
        rewards: (batch, n), in any order; higher is better.
        margin: wanted log-prob difference per rank distance.
        reward_gap: pairs whose rewards differ by no more than this are masked.
        sft_weight: alpha, the weight of the SFT term.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    _check_shapes(mean_logps, sum_logps, rewards)
    ranked_rewards, ranked_means, ranked_sums = rank_by_reward(rewards, mean_logps, sum_logps)
    contrastive = contrastive_loss(ranked_means, ranked_rewards, margin=margin, reward_gap=reward_gap)
    sft = adaptive_sft_loss(ranked_sums, ranked_rewards, sft_weight=sft_weight)
    return CLHALoss(contrastive, sft, contrastive + sft)


def pro_loss(mean_logps: Tensor, rewards: Tensor) -> Tensor:
    """Preference ranking optimisation (PRO, arXiv 2306.17492): the ranking term, reward differences as temperatures.

    At each rank k the best remaining candidate is contrasted with all worse ones, a softmax over p_j * T_j with
    T_j = r_k - r_j, and T_k = max_j T_j; the ranks are summed, the batch is averaged.

    Args:
        mean_logps, rewards: (batch, n), as in `clha_loss`.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    _check_shapes(mean_logps, rewards)
    ranked_rewards, ranked_means = rank_by_reward(rewards, mean_logps)
    loss = mean_logps.new_zeros(())
    for rank in range(rewards.shape[1] - 1):
        temperatures = ranked_rewards[:, rank : rank + 1] - ranked_rewards[:, rank + 1 :]
        best = ranked_means[:, rank : rank + 1] * temperatures.amax(dim=1, keepdim=True)
        worse = ranked_means[:, rank + 1 :] * temperatures
        floor = torch.full_like(best, math.log(PRO_EPSILON))
        loss = loss + (torch.cat([best, worse, floor], dim=1).logsumexp(dim=1) - best.squeeze(1)).mean()
    return loss


def _check_shapes(*tensors: Tensor) -> None:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1 or tensors[0].ndim != 2 or tensors[0].shape[1] < 2:
        raise ValueError(f"expected tensors of one shape (batch, n) with n >= 2, got {sorted(shapes)}")
