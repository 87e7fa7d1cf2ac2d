"""Wins, ties and losses with their intervals, for every kind of judge."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from clha_core.evaluation.metrics import bootstrap_interval
from clha_core.evaluation.summary import DIGITS, TOTAL
from clha_core.judging.labels import OUTCOMES
from clha_core.params import EvaluateParams


def outcome_measures(signs: ArrayLike, params: EvaluateParams) -> dict[str, float]:
    """Shares of wins, ties and losses, and the win rate in which a tie counts half.

    Args:
        signs: 1 (win), 0 (tie) or -1 (lose), (n,).
        params: confidence, bootstrap_samples and seed.

    Returns:
        pairs (n), win, tie, lose with Wilson intervals (_low, _high), win_rate with a bootstrap interval over pairs.

    Raises:
        ValueError: no signs.
    """
    array = np.asarray(signs, dtype=int)
    measures = {"pairs": float(array.size)}
    for value, name in OUTCOMES.items():
        measures |= share(name, int((array == value).sum()), array.size, params.confidence)
    rate = bootstrap_interval(
        (array + 1) / 2, confidence=params.confidence, samples=params.bootstrap_samples, seed=params.seed
    )
    measures |= {"win_rate": rate.mean, "win_rate_low": rate.low, "win_rate_high": rate.high}
    return {name: round(value, DIGITS) for name, value in measures.items()}


def share(name: str, count: int, of: int, confidence: float) -> dict[str, float]:
    """A share and its Wilson interval, under `name`, `name`_low and `name`_high.

    Raises:
        ValueError: a share of nothing.
    """
    interval = stats.binomtest(count, of).proportion_ci(confidence, method="wilson")
    values = {name: count / of, f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
    return {key: round(value, DIGITS) for key, value in values.items()}


def outcomes_by_subset(signs: ArrayLike, subsets: Sequence[str], params: EvaluateParams) -> dict[str, dict[str, float]]:
    """outcome_measures() for every subset, and for all pairs under "total"."""
    frame = pd.DataFrame({"sign": np.asarray(signs, dtype=int), "subset": list(subsets)})
    groups = {str(name): group for name, group in frame.groupby("subset", sort=True)} | {TOTAL: frame}
    return {name: outcome_measures(group["sign"], params) for name, group in groups.items()}
