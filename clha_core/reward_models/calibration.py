"""One scale and one zero for reward models that were trained apart."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from clha_core.scoring.folds import Calibration


def fit_calibration(chosen: NDArray[np.float64], rejected: NDArray[np.float64]) -> Calibration:
    """Temperature scaling (Guo et al. 2017, arXiv 1706.04599) of a Bradley-Terry model, and its zero.

    The temperature maximises the likelihood of the labels, sigma((chosen - rejected) / temperature). A standard normal
    prior on its logarithm, worth less than a label or two, keeps it finite and positive where labels are few, all
    explained, or contradicted.

    Args:
        chosen, rejected: (pairs,) logits of labelled pairs that the model has not learned from.
    """
    difference = chosen - rejected

    def loss(log_temperature: float) -> float:
        likelihood = np.logaddexp(0.0, -difference / np.exp(log_temperature)).sum()
        return float(likelihood + 0.5 * log_temperature**2)

    found = minimize_scalar(loss, bounds=(-10.0, 10.0), method="bounded")
    return Calibration(zero=float(np.mean([chosen, rejected])), temperature=float(np.exp(found.x)))
