"""How far the reward model agrees with the labels, and what its agreement depends on."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from clha_core.rescoring.noise.pairs import TOTAL

CONFIDENCE = 0.95
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
BUCKETS = 5
# Lengths by which pairs are put into buckets: name and column.
LENGTHS = {
    "Longer response": "longer_chars",
    "Chosen minus rejected": "chosen_longer_by",
    "Prompt": "prompt_chars",
}


def groups(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every subset by its name, then all rows as "total"."""
    yield from ((str(name), group) for name, group in table.groupby("subset", sort=True, observed=True))
    yield TOTAL, table


def contradictions(difference: pd.Series) -> dict[str, float]:
    """How many labels are contradicted, as a share with its 95 % Wilson interval."""
    contradicted = int((difference < 0).sum())
    interval = stats.binomtest(contradicted, len(difference)).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "pairs": float(len(difference)),
        "contradiction_rate": contradicted / len(difference),
        "contradiction_rate_low": float(interval.low),
        "contradiction_rate_high": float(interval.high),
    }


def label_measures(table: pd.DataFrame) -> dict[str, float]:
    """Agreement with the labels: contradictions, ties, moments of the difference and quantiles of its size."""
    difference = table["difference"]
    return {
        **contradictions(difference),
        "tie_rate": float((difference == 0).mean()),
        "difference_mean": float(difference.mean()),
        "difference_std": float(difference.std(ddof=0)),
    } | {quantile_name(quantile): float(difference.abs().quantile(quantile)) for quantile in QUANTILES}


def length_bias(table: pd.DataFrame) -> dict[str, float]:
    """Whether people and the reward model prefer length; what is undefined is left out.

    `length_correlation` is Spearman's of the reward difference with the length difference; `longer_chosen_rate` and
    `longer_preferred_rate` say how often the label and the reward (ties aside) are for the longer response;
    `contradiction_rate_longer` and `..._shorter` are those where the chosen response is the longer and the shorter one.
    """
    difference, longer_by = table["difference"], length_difference(table)
    apart = longer_by != 0
    found: dict[str, float] = {}
    if difference.nunique() > 1 and longer_by.nunique() > 1:
        found["length_correlation"] = float(stats.spearmanr(difference, longer_by).statistic)
    if apart.any():
        found["longer_chosen_rate"] = float((longer_by[apart] > 0).mean())
    decided = apart & (difference != 0)
    if decided.any():
        found["longer_preferred_rate"] = float((longer_by[decided] * difference[decided] > 0).mean())
    for name, side in (("longer", longer_by > 0), ("shorter", longer_by < 0)):
        if side.any():
            found[f"contradiction_rate_{name}"] = float((difference[side] < 0).mean())
    return found


def length_buckets(table: pd.DataFrame) -> pd.DataFrame:
    """Contradictions by length: a row per bucket, up to five of about equally many pairs for each length.

    Returns:
        Columns length (of LENGTHS), from, to (characters, both inclusive) and those of `contradictions`.
    """
    lengths = pd.DataFrame(
        {
            "longer_chars": table[["chosen_chars", "rejected_chars"]].max(axis=1),
            "chosen_longer_by": length_difference(table),
            "prompt_chars": table["prompt_chars"],
        }
    )
    rows = []
    for name, column in LENGTHS.items():
        values = lengths[column]
        cuts = np.unique(np.quantile(values, np.arange(1, BUCKETS) / BUCKETS))
        for _, inside in values.groupby(np.searchsorted(cuts, values)):
            bounds = {"length": name, "from": int(inside.min()), "to": int(inside.max())}
            rows.append(bounds | contradictions(table.loc[inside.index, "difference"]))
    return pd.DataFrame(rows)


def length_difference(table: pd.DataFrame) -> pd.Series:
    """Characters that the chosen response is longer by."""
    return table["chosen_chars"] - table["rejected_chars"]


def origin_measures(origins: pd.DataFrame) -> dict[str, dict[str, float]]:
    """For every kind of candidate, of how many of the rows that have one it is the best, as a share."""
    return {
        str(name): {"rows": float(row["rows"]), "best_rate": float(row["best"] / row["rows"])}
        for name, row in origins.iterrows()
    }


def quantile_name(quantile: float) -> str:
    return f"difference_size_q{100 * quantile:.0f}"


def histogram_edges(difference: pd.Series, bins: int) -> np.ndarray:
    """Edges of an even number of bins, symmetric, so that zero is one and no bin mixes the two signs."""
    largest = float(difference.abs().max()) or 1.0  # all tied: any width does
    return largest * (np.arange(-(bins // 2), bins // 2 + 1) / (bins // 2))  # zero and both ends are exact
