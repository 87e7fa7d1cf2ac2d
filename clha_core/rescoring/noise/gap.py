"""What train.reward_gap masks at each of its values: the curve to choose it by."""

import numpy as np
import pandas as pd

from clha_core.rescoring.noise.pairs import Pairs
from clha_core.rescoring.noise.truth import Truth

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
POINTS = 81


def gap_curve(pairs: Pairs, truth: Truth | None = None) -> pd.DataFrame:
    """`gap_figures` at evenly spaced gaps from 0 to the largest difference of neighbouring ranks."""
    return gap_figures(pairs, np.linspace(0, float(pairs.neighbours.max()), POINTS), truth)


def gap_table(pairs: Pairs, truth: Truth | None = None) -> pd.DataFrame:
    """`gap_figures` at the quantiles of train.reward_gap_quantile, which are the column `quantile`.

    A gap is computed as clha_core.losses.ranking.reward_gap_at_quantile does.
    """
    gaps = np.quantile(pairs.neighbours, QUANTILES)
    gaps[0] = 0.0
    return gap_figures(pairs, gaps, truth).assign(quantile=QUANTILES)


def gap_figures(pairs: Pairs, gaps: np.ndarray, truth: Truth | None = None) -> pd.DataFrame:
    """What is masked and what is left at each gap.

    Args:
        gaps: ascending, >= 0. A pair is masked if its rewards differ by at most the gap.

    Returns:
        A row per gap: `gap`; `masked`, the share of the neighbouring ranks that do not train; of the labelled pairs
        that still train, how many (`kept`) and the share whose label is contradicted (`contradicted_of_kept`); the
        share of all contradictions that is left (`contradictions_left`); with `truth` also the share of the pairs
        that train in the wrong direction (`wrong_of_kept`). Shares of nothing are missing.
    """
    size = np.sort(pairs.table["difference"].abs().to_numpy())
    contradicted = np.sort(-pairs.table["difference"][pairs.table["difference"] < 0].to_numpy())
    kept = _above(size, gaps)
    contradictions_left = _above(contradicted, gaps)
    figures = {
        "gap": gaps,
        "masked": 1 - _above(np.sort(pairs.neighbours), gaps) / len(pairs.neighbours),
        "kept": kept,
        "contradicted_of_kept": _share(contradictions_left, kept),
        "contradictions_left": _share(contradictions_left, np.full(len(gaps), len(contradicted))),
    }
    if truth is not None:
        difference = pairs.table["difference"].to_numpy()
        wrong = np.sort(np.abs(difference[difference * truth.gold_difference < 0]))
        figures["wrong_of_kept"] = _share(_above(wrong, gaps), kept)
    return pd.DataFrame(figures)


def _above(ascending: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """How many values are larger than each gap."""
    return len(ascending) - np.searchsorted(ascending, gaps, side="right")


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
