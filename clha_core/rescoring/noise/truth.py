"""Generated data only: which labels are wrong is known, so the flips that the reward model finds can be counted."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd

from clha_core.params import SampleParams
from clha_core.sample.dialogues import label_truth

CURVE_POINTS = 200


@dataclass(frozen=True)
class Truth:
    """What is known of each row's label, in the order of the rows.

    Attributes:
        flipped: (rows,), true where noise turned the label round.
        gold_difference: (rows,), gold reward of the chosen minus gold reward of the rejected response.
    """

    flipped: np.ndarray
    gold_difference: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """True where the label is for the response with the lower gold reward: by noise, or as people are unsure."""
        return self.gold_difference < 0


def sample_truth(ids: Iterable[str], params: SampleParams) -> Truth:
    """The truth of train rows of the embedded sample, which is generated again to learn it.

    Args:
        ids: as ingest writes them, "subset/train/number".
    """
    numbers = np.fromiter((int(row_id.rsplit("/", 1)[1]) for row_id in ids), dtype=np.int64)
    generated = islice(label_truth(params, "train"), int(numbers.max()) + 1)
    known = np.fromiter(
        ((truth.flipped, truth.gold[0] - truth.gold[1]) for truth in generated),
        dtype=[("flipped", np.bool_), ("gold_difference", np.float64)],
    )[numbers]
    return Truth(known["flipped"], known["gold_difference"])


def detection_measures(found: pd.Series, bad: np.ndarray) -> dict[str, float]:
    """Contradicted labels as a test for bad ones; without a single bad one, or nothing but them, only the rate.

    Args:
        found: (rows,), reward differences; a contradiction is a label found.
        bad: (rows,), the labels to find.

    Returns:
        `rate` of bad labels, `precision` and `recall` of the contradictions, `average_precision` and `roc_auc` over
        all thresholds of the difference.
    """
    measures = {"rate": float(bad.mean())}
    if bad.any() and not bad.all():
        from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

        contradicted = found < 0
        measures |= {
            "precision": float(precision_score(bad, contradicted, zero_division=0.0)),
            "recall": float(recall_score(bad, contradicted)),
            "average_precision": float(average_precision_score(bad, -found)),
            "roc_auc": float(roc_auc_score(bad, -found)),
        }
    return measures


def detection_curve(found: pd.Series, bad: np.ndarray) -> pd.DataFrame:
    """Precision and recall where a label counts as found if its difference is at most `threshold`, at most 200 of them.

    Returns:
        Columns threshold (descending), precision, recall; no rows if there is no bad label.
    """
    if not bad.any():
        return pd.DataFrame({"threshold": [], "precision": [], "recall": []})
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(bad, -found)
    # The last point (precision 1, recall 0) is a convention and has no threshold.
    places = np.unique(np.linspace(0, len(thresholds) - 1, CURVE_POINTS).round().astype(int))
    return pd.DataFrame({"threshold": -thresholds[places], "precision": precision[places], "recall": recall[places]})
