"""How well a reward model predicts labels that it has not learned from: accuracy and calibration."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

CONFIDENCE = 0.95
BINS = 10
DIGITS = 6


def label_quality(difference: NDArray[np.float64]) -> dict[str, float]:
    """Accuracy with its 95 % Wilson interval, log loss and expected calibration error.

    A label is predicted where the chosen response has the higher reward; a tie is no prediction. The log loss is that
    of sigma(difference), log 2 for a model that knows nothing. The calibration error (Naeini et al. 2015) is the mean
    of |confidence - accuracy| over the bins of `reliability`, weighted by their pairs.

    Args:
        difference: (pairs,) reward of the chosen minus reward of the rejected response.
    """
    pairs, correct = len(difference), int((difference > 0).sum())
    interval = stats.binomtest(correct, pairs).proportion_ci(CONFIDENCE, method="wilson")
    bins = reliability(difference)
    figures = {
        "pairs": float(pairs),
        "accuracy": correct / pairs,
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
        "log_loss": float(np.logaddexp(0.0, -difference).mean()),
        "calibration_error": float(((bins["confidence"] - bins["accuracy"]).abs() * bins["pairs"]).sum() / pairs),
    }
    return {name: round(value, DIGITS) for name, value in figures.items()}


def reliability(difference: NDArray[np.float64]) -> pd.DataFrame:
    """How often the better rated response is the chosen one, by how sure the model is: sigma(|difference|).

    Bins of equal width between 0.5 and 1; those without pairs are left out.

    Returns:
        Columns bin (its middle), pairs, confidence (mean), accuracy with the low and high end of its 95 % Wilson
        interval.
    """
    confidence = expit(np.abs(difference))
    width = 0.5 / BINS
    place = np.minimum((confidence - 0.5) // width, BINS - 1).astype(int)
    rows = []
    for number in np.unique(place):
        inside = place == number
        pairs, correct = int(inside.sum()), int((difference[inside] > 0).sum())
        interval = stats.binomtest(correct, pairs).proportion_ci(CONFIDENCE, method="wilson")
        rows.append(
            {
                "bin": 0.5 + (number + 0.5) * width,
                "pairs": pairs,
                "confidence": float(confidence[inside].mean()),
                "accuracy": correct / pairs,
                "accuracy_low": float(interval.low),
                "accuracy_high": float(interval.high),
            }
        )
    return pd.DataFrame(rows).round(DIGITS)
