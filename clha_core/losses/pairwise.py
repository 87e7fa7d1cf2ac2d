"""Losses on pairs: DPO, IPO, SimPO and ORPO, each with TRL's meaning of its parameters.

They contrast two candidates of a row: the best-rated (w) and the worst-rated (l) one that is present. With n > 2 the
candidates between them do not train. Of equal rewards, the first slot counts as the better one.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from clha_core.losses.ranking import ABSENT, Totals, ranked_candidates, row_count
from clha_core.losses.sft import sft_loss


class ORPOLoss(NamedTuple):
    """`total` is what to call backward() on; it is `odds_ratio` (beta included) + `nll`."""

    odds_ratio: Tensor
    nll: Tensor
    total: Tensor


def dpo_loss(
    sum_logps: Tensor,
    reference_sum_logps: Tensor,
    rewards: Tensor,
    *,
    beta: float = 0.1,
    totals: Totals | None = None,
) -> Tensor:
    """Direct preference optimisation (arXiv 2305.18290, equation 7).

    With h the difference between best and worst of sum_logps - reference_sum_logps: -log sigmoid(beta * h), mean over
    the batch's rows.

    Args:
        sum_logps: (batch, n), log-prob of each response given its prompt, summed over the response's tokens.
        reference_sum_logps: (batch, n), the same under the reference model.
        rewards: (batch, n), in any order; ABSENT where there is no candidate.
        beta: strength of the tie to the reference model.
        totals: counts of the whole step; None takes the mean over this batch alone.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    best, worst = _best_and_worst(rewards, sum_logps, reference_sum_logps)
    log_ratios = (best[0] - best[1]) - (worst[0] - worst[1])
    return _mean_over_rows(-logsigmoid(beta * log_ratios), totals)


def ipo_loss(
    mean_logps: Tensor,
    reference_mean_logps: Tensor,
    rewards: Tensor,
    *,
    beta: float = 0.1,
    totals: Totals | None = None,
) -> Tensor:
    """Identity preference optimisation (arXiv 2310.12036, equation 17), on log-probs per token as in TRL.

    With h the difference between best and worst of mean_logps - reference_mean_logps: (h - 1 / (2 beta))^2, mean over
    the batch's rows.

    Args:
        mean_logps: (batch, n), log-prob of each response given its prompt, averaged over the response's tokens.
        reference_mean_logps: (batch, n), the same under the reference model.
        rewards: (batch, n), in any order; ABSENT where there is no candidate.
        beta: the paper's tau, strength of the tie to the reference model.
        totals: counts of the whole step; None takes the mean over this batch alone.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    best, worst = _best_and_worst(rewards, mean_logps, reference_mean_logps)
    log_ratios = (best[0] - best[1]) - (worst[0] - worst[1])
    return _mean_over_rows((log_ratios - 1 / (2 * beta)) ** 2, totals)


def simpo_loss(
    mean_logps: Tensor, rewards: Tensor, *, beta: float = 2.0, gamma: float = 1.0, totals: Totals | None = None
) -> Tensor:
    """Simple preference optimisation (arXiv 2405.14734, equation 6).

    -log sigmoid(beta * (p_w - p_l) - gamma), mean over the batch's rows: gamma / beta is the wanted difference of
    log-probs, as with TRL's `simpo_gamma`.

    Args:
        mean_logps: (batch, n), log-prob of each response given its prompt, averaged over the response's tokens.
        rewards: (batch, n), in any order; ABSENT where there is no candidate.
        beta: scale of the implicit reward beta * p.
        gamma: wanted difference of implicit rewards.
        totals: counts of the whole step; None takes the mean over this batch alone.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    (best,), (worst,) = _best_and_worst(rewards, mean_logps)
    return _mean_over_rows(-logsigmoid(beta * (best - worst) - gamma), totals)


def orpo_loss(
    mean_logps: Tensor,
    sum_logps: Tensor,
    lengths: Tensor,
    rewards: Tensor,
    *,
    beta: float = 0.1,
    totals: Totals | None = None,
) -> ORPOLoss:
    """Odds ratio preference optimisation (arXiv 2403.07691, equations 6 and 7).

    -beta * log sigmoid(log odds(w) - log odds(l)) with odds = P / (1 - P) and P = exp(p), mean over the batch's rows;
    plus the negative log-likelihood of the best candidates, mean over their response tokens. (TRL's likelihood term
    counts the prompt's tokens too.)

    Args:
        mean_logps: (batch, n), log-prob of each response given its prompt, averaged over the response's tokens.
        sum_logps: (batch, n), the same summed.
        lengths: (batch, n), number of those tokens.
        rewards: (batch, n), in any order; ABSENT where there is no candidate.
        beta: the paper's lambda, weight of the odds ratio.
        totals: counts of the whole step; None takes the means over this batch alone.

    Raises:
        ValueError: shapes differ, or fewer than two candidates.
    """
    (best,), (worst,) = _best_and_worst(rewards, mean_logps)
    log_odds_ratio = _log_odds(best) - _log_odds(worst)
    odds_ratio = beta * _mean_over_rows(-logsigmoid(log_odds_ratio), totals)
    nll = sft_loss(sum_logps, lengths, rewards, totals=totals)
    return ORPOLoss(odds_ratio, nll, odds_ratio + nll)


def _log_odds(logps: Tensor) -> Tensor:
    """log(P / (1 - P)) of P = exp(logps).

    expm1 is exact where P is near 1; where P is near 0 the rounding of 1 - P is lost beside logps itself. A P that
    rounds to 1 has no odds: it is held one rounding step below.
    """
    below_one = logps.clamp(max=-torch.finfo(logps.dtype).eps)
    return logps - torch.log(-torch.expm1(below_one))


def _best_and_worst(rewards: Tensor, *logps: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Of each of `logps`, the values of the best- and of the worst-rated present candidate, each (batch,)."""
    ranked_rewards, *ranked = ranked_candidates(rewards, *logps)
    last = (ranked_rewards > ABSENT).sum(dim=1, keepdim=True) - 1
    return [tensor[:, 0] for tensor in ranked], [tensor.gather(1, last).squeeze(1) for tensor in ranked]


def _mean_over_rows(losses: Tensor, totals: Totals | None) -> Tensor:
    return losses.sum() / (row_count(losses) if totals is None else totals.rows)
