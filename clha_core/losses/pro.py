"""PRO: "Preference Ranking Optimization for Human Alignment", arXiv 2306.17492."""

import math

import torch
from torch import Tensor

from clha_core.losses.ranking import ABSENT, Totals, ranked_candidates, row_count

# Added inside PRO's logarithm by its authors' code; without it the golden values differ in the fifth digit.
PRO_EPSILON = 1e-10


def pro_loss(mean_logps: Tensor, rewards: Tensor, *, totals: Totals | None = None) -> Tensor:
    """Preference ranking optimisation: the ranking term, reward differences as temperatures.

    At each rank k the best remaining candidate is contrasted with all worse ones, a softmax over p_j * T_j with
    T_j = r_k - r_j, and T_k = max_j T_j; the ranks are summed, mean over the batch's rows. PRO's own SFT term is
    left to the caller.

    Args:
        mean_logps: (batch, n), log-prob of each response given its prompt, averaged over the response's tokens.
        rewards: (batch, n), in any order; ABSENT where there is no candidate.
        totals: counts of the whole step; None takes the mean over this batch alone.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    ranked_rewards, ranked_means = ranked_candidates(rewards, mean_logps)
    present = ranked_rewards > ABSENT
    loss = mean_logps.new_zeros(())
    for rank in range(rewards.shape[1] - 1):
        worse_present = present[:, rank + 1 :]
        differences = ranked_rewards[:, rank : rank + 1] - ranked_rewards[:, rank + 1 :]
        temperatures = torch.where(worse_present, differences, 0)
        best = ranked_means[:, rank : rank + 1] * temperatures.amax(dim=1, keepdim=True)
        worse = torch.where(worse_present, ranked_means[:, rank + 1 :] * temperatures, -math.inf)
        floor = torch.full_like(best, math.log(PRO_EPSILON))
        terms = torch.cat([best, worse, floor], dim=1).logsumexp(dim=1) - best.squeeze(1)
        # The last candidate of a row has nothing worse to be contrasted with.
        loss = loss + torch.where(worse_present[:, 0], terms, 0).sum()
    return loss / (row_count(rewards) if totals is None else totals.rows)
