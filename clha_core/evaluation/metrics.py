"""Metrics of generated answers and of preference pairs: pure functions of arrays and texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sacrebleu.metrics import BLEU
from scipy import stats
from scipy.special import expit

# Resamples drawn at once: bounds memory at this many copies of the data.
BOOTSTRAP_BATCH = 200


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class WinRate:
    """How one system fares against another on the same prompts: shares that add up to 1."""

    win: float
    tie: float
    lose: float
    rate: Interval  # win + tie / 2


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of a corpus as sacrebleu defines it (tokenizer 13a, exponential smoothing), 0 to 100.

    Raises:
        ValueError: no texts, or not as many references as hypotheses.
    """
    _check_texts(hypotheses, references)
    return float(BLEU().corpus_score(list(hypotheses), [list(references)]).score)


def character_bleu_reference(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """The number that the published code for CLHA and PRO calls BLEU, 0 to 100; not comparable with other BLEU.

    It hands strings to a function that expects lists of words. The result is BLEU over *characters*, blanks
    included, without smoothing, computed per answer and then averaged. It is here to be set beside the
    published tables, where texts that share nothing but their language reach 10 to 30.

    Raises:
        ValueError: no texts, or not as many references as hypotheses.
    """
    _check_texts(hypotheses, references)
    bleu = BLEU(tokenize="none", smooth_method="none")
    scores = [
        bleu.corpus_score([_spell(hypothesis)], [[_spell(reference)]]).score
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]
    return float(np.mean(scores))


def _spell(text: str) -> str:
    """Characters as words; sacrebleu splits words at blanks, so blanks get a visible form."""
    return " ".join("\u2423" if character.isspace() else character for character in text.strip())


def bootstrap_interval(values: ArrayLike, *, confidence: float, samples: int, seed: int) -> Interval:
    """Mean of `values` (n,) with its percentile bootstrap interval.

    Values without spread, a single one among them, give an interval of width zero. That is no certainty: the
    bootstrap knows only the values that it was shown.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    array = _finite(values)
    mean = float(array.mean())
    if np.all(array == array[0]):
        return Interval(mean, mean, mean)
    interval = stats.bootstrap(
        (array,),
        np.mean,
        confidence_level=confidence,
        n_resamples=samples,
        batch=BOOTSTRAP_BATCH,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high))


def paired_bootstrap_difference(a: ArrayLike, b: ArrayLike, *, confidence: float, samples: int, seed: int) -> Interval:
    """Mean of a - b, both (n,) and of the same prompts in the same order; prompts are resampled, not sides.

    Raises:
        ValueError: arrays of different shape, empty, or not finite.
    """
    first, second = _paired(a, b)
    return bootstrap_interval(first - second, confidence=confidence, samples=samples, seed=seed)


def win_rate(a: ArrayLike, b: ArrayLike, *, confidence: float, samples: int, seed: int) -> WinRate:
    """How often a's reward is higher than b's, both (n,) and of the same prompts; a tie counts half.

    Raises:
        ValueError: arrays of different shape, empty, or not finite.
    """
    first, second = _paired(a, b)
    points = np.where(first > second, 1.0, np.where(first < second, 0.0, 0.5))
    return WinRate(
        win=float(np.mean(points == 1.0)),
        tie=float(np.mean(points == 0.5)),
        lose=float(np.mean(points == 0.0)),
        rate=bootstrap_interval(points, confidence=confidence, samples=samples, seed=seed),
    )


def sigmoid_x100(rewards: ArrayLike) -> float:
    """Mean of sigmoid(reward) times 100: the unit of the published reward tables.

    Raises:
        ValueError: no rewards, or rewards that are not finite.
    """
    return float(100 * expit(_finite(rewards)).mean())


def _check_texts(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if not hypotheses or len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses and {len(references)} references do not pair up")


def _finite(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"expected one or more finite numbers in a row, got shape {array.shape}")
    return array


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = _finite(a), _finite(b)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} values do not pair up")
    return first, second
