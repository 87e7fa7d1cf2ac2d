"""Supervised fine-tuning on the best candidate."""

from torch import Tensor

from clha_core.losses.ranking import Totals, ranked_candidates


def sft_loss(sum_logps: Tensor, lengths: Tensor, rewards: Tensor, *, totals: Totals | None = None) -> Tensor:
    """Negative log-likelihood of the best candidates: -(sum of log-probs) / (number of tokens).

    The mean is over all response tokens of the batch's best candidates: a long response weighs more than a short one.

    Args:
        sum_logps: (batch, n), log-prob of each response given its prompt, summed over the response's tokens.
        lengths: (batch, n), number of those tokens.
        rewards: (batch, n), in any order; ABSENT where there is no candidate.
        totals: counts of the whole step; None takes the mean over this batch alone.

    Returns:
        Scalar, nats per token.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    _, ranked_sums, ranked_lengths = ranked_candidates(rewards, sum_logps, lengths)
    return -ranked_sums[:, 0].sum() / (ranked_lengths[:, 0].sum() if totals is None else totals.tokens)
