"""How far judges agree beyond chance, by statsmodels; and how far one judge's outcomes are another's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

from clha_core.evaluation.summary import DIGITS
from clha_core.judging.outcomes import share

NO_VARIANCE = 1e-12  # what rounding leaves of none


def cohen(
    first: Sequence[int], second: Sequence[int], categories: Sequence[int], *, weighted: bool = False
) -> dict[str, float | None] | None:
    """Cohen's kappa of two judges over the same items, with its asymptotic 95 % interval.

    Args:
        first, second: their labels, (n,) each, out of `categories`.
        categories: all labels; for the weighted kappa they are numbers on a scale.
        weighted: quadratic weights: a near miss counts less than a contradiction.

    Returns:
        kappa, kappa_low and kappa_high, or None where it is not defined: no items, or both judges used one and the
        same label throughout. The ends are None where the labels have no spread to estimate them from: full
        agreement, or one label throughout from one of the judges.
    """
    if not len(first) or len({*first, *second}) == 1:
        return None
    place = {category: index for index, category in enumerate(categories)}
    table = np.zeros((len(place), len(place)))
    for one, other in zip(first, second, strict=True):
        table[place[one], place[other]] += 1
    with np.errstate(divide="ignore", invalid="ignore"):  # full agreement has no spread to test against
        result = cohens_kappa(
            table, weights=np.asarray(categories) if weighted else None, wt="quadratic" if weighted else None
        )
    figures: dict[str, float | None] = {"kappa": round(float(result.kappa), DIGITS) + 0.0}
    spread = result.var_kappa > NO_VARIANCE
    figures["kappa_low"] = round(float(max(result.kappa_low, -1)), DIGITS) if spread else None
    figures["kappa_high"] = round(float(min(result.kappa_upp, 1)), DIGITS) if spread else None
    return figures


def fleiss(votes: np.ndarray) -> float | None:
    """Fleiss' kappa of several judges who all labelled every item.

    Args:
        votes: labels, (items, judges).

    Returns:
        The kappa, or None where it is not defined: no items, or one label throughout.
    """
    if not votes.size or (votes == votes.flat[0]).all():
        return None
    counts, _ = aggregate_raters(votes)
    return round(float(fleiss_kappa(counts, method="fleiss")), DIGITS)


def outcome_agreement(first: Sequence[int], second: Sequence[int], confidence: float) -> dict[str, Any]:
    """How far two judges' outcomes of the same pairs (1 win, 0 tie, -1 lose) are the same.

    Returns:
        pairs; agreement: the share with the same outcome; kappa: Cohen's over the three outcomes, or None; decided:
        how many pairs neither called a tie; decided_agreement: the share of these in which both name the same
        winner, or None. Shares have Wilson intervals.
    """
    one, other = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    decided = (one != 0) & (other != 0)
    result: dict[str, Any] = {"pairs": int(one.size), "decided": int(decided.sum())}
    result |= share("agreement", int((one == other).sum()), one.size, confidence)
    result["kappa"] = cohen(one.tolist(), other.tolist(), (-1, 0, 1))
    result["decided_agreement"] = None
    if decided.any():
        result |= share("decided_agreement", int((one == other)[decided].sum()), int(decided.sum()), confidence)
    return result
