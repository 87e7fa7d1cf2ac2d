"""Whether a judge rewards length, and what is left of a win rate without it."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.linear_model import LogisticRegression

from clha_core.evaluation.summary import DIGITS
from clha_core.judging.outcomes import outcome_measures, share
from clha_core.params import EvaluateParams

SIMILAR = 0.1  # lengths that differ by at most this share of the longer one
RESAMPLES = 500  # of the fit, which costs some milliseconds


def length_report(
    signs: ArrayLike, lengths: ArrayLike, other_lengths: ArrayLike, params: EvaluateParams
) -> dict[str, Any]:
    """How outcomes depend on the lengths of the answers.

    Args:
        signs: 1 (win), 0 (tie) or -1 (lose), (n,).
        lengths, other_lengths: characters of the system's and of the other answer, (n,) each.
        params: confidence, bootstrap_samples and seed.

    Returns:
        mean_length, mean_other_length; by_length: outcome_measures() of the pairs in which the system's answer is
        shorter, similar (within 10 %) or longer, where there are any; longer_wins: how often the longer of two
        answers wins, of the pairs with a winner and different lengths, with its interval, or None;
        length_controlled_win_rate with its interval.
    """
    outcome, length, other = (np.asarray(values) for values in (signs, lengths, other_lengths))
    difference = length - other
    similar = np.abs(difference) <= SIMILAR * np.maximum(length, other)
    groups = {"shorter": ~similar & (difference < 0), "similar": similar, "longer": ~similar & (difference > 0)}
    report: dict[str, Any] = {
        "mean_length": round(float(length.mean()), 1),
        "mean_other_length": round(float(other.mean()), 1),
        "by_length": {name: outcome_measures(outcome[of], params) for name, of in groups.items() if of.any()},
        "longer_wins": None,
    }
    decided = (outcome != 0) & (difference != 0)
    if decided.any():
        longer = int((np.sign(difference[decided]) == outcome[decided]).sum())
        report["longer_wins"] = share("share", longer, int(decided.sum()), params.confidence)
    return report | _controlled(outcome, difference, params)


def length_controlled_win_rate(signs: ArrayLike, differences: ArrayLike) -> float:
    """The win rate to expect if both answers were always of one length.

    A logistic regression of the outcome on tanh(difference / its standard deviation), read at zero: AlpacaEval's
    length control (arXiv 2404.04475) without its term for the difficulty of each prompt, which one comparison cannot
    tell. A tie counts as half a win and half a loss. A weak L2 penalty on the slope, not on the intercept, keeps the
    fit finite where length decides every outcome.

    Args:
        signs: 1 (win), 0 (tie) or -1 (lose), (n,).
        differences: length of the system's answer minus the other's, (n,).
    """
    points = (np.asarray(signs, dtype=float) + 1) / 2
    difference = np.asarray(differences, dtype=float)
    spread = difference.std()
    if spread == 0 or (points == points[0]).all():
        return float(points.mean())
    feature = np.tanh(difference / spread)[:, None]
    fitted = LogisticRegression(C=1.0).fit(
        np.concatenate([feature, feature]),
        np.repeat([1, 0], len(points)),
        sample_weight=np.concatenate([points, 1 - points]),
    )
    return float(fitted.predict_proba(np.zeros((1, 1)))[0, 1])


def _controlled(outcome: np.ndarray, difference: np.ndarray, params: EvaluateParams) -> dict[str, float]:
    name = "length_controlled_win_rate"
    value = length_controlled_win_rate(outcome, difference)
    low, high = value, value
    if len(outcome) > 1:
        interval = stats.bootstrap(
            (outcome, difference),
            length_controlled_win_rate,
            paired=True,
            vectorized=False,
            confidence_level=params.confidence,
            n_resamples=min(params.bootstrap_samples, RESAMPLES),
            method="percentile",
            rng=np.random.default_rng(params.seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return {key: round(number, DIGITS) for key, number in ((name, value), (f"{name}_low", low), (f"{name}_high", high))}
