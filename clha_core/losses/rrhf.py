"""RRHF: "Rank Responses to Align Language Models with Human Feedback without tears", arXiv 2304.05302."""

import torch
from torch import Tensor

from clha_core.losses.ranking import ABSENT, Totals, ranked_candidates, row_count


def rrhf_loss(mean_logps: Tensor, rewards: Tensor, *, totals: Totals | None = None) -> Tensor:
    """RRHF's ranking term: a hinge without margin on every pair whose likelihoods contradict the rewards.

    The sum over pairs with r_i > r_j of max(0, p_j - p_i), mean over the batch's rows. RRHF's own SFT term is left to
    the caller.

    Args:
        mean_logps: (batch, n), log-prob of each response given its prompt, averaged over the response's tokens.
        rewards: (batch, n), in any order; ABSENT where there is no candidate. Pairs of equal reward do not train.
        totals: counts of the whole step; None takes the mean over this batch alone.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    ranked_rewards, ranked_means = ranked_candidates(rewards, mean_logps)
    # (batch, i, j): by how much candidate j is more likely than i.
    hinge = (ranked_means.unsqueeze(1) - ranked_means.unsqueeze(2)).clamp(min=0)
    contrasted = (ranked_rewards.unsqueeze(2) > ranked_rewards.unsqueeze(1)) & (ranked_rewards > ABSENT).unsqueeze(1)
    return torch.where(contrasted, hinge, 0).sum() / (row_count(rewards) if totals is None else totals.rows)
