"""Cross-fitted rating: no row is rated by a model that learned from its label."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from clha_core.scoring.folds import fold_folder, read_folds

if TYPE_CHECKING:
    import torch

    from clha_core.scoring.rater import RaterSpec


class FoldedRater:
    """All fold models of a folder with folds.json.

    A row whose prompt the models learned from is rated by the one that did not; any other row by the mean over all.
    Candidates of one row are always rated by the same models.
    """

    def __init__(self, spec: "RaterSpec", device: "torch.device | str | None" = None) -> None:
        self.spec = spec
        self._folds, self._calibrations = read_folds(spec.folder)
        folders = [fold_folder(spec.folder, fold) for fold in range(self._folds.count)]
        self._raters = [replace(spec, folder=folder).load(device) for folder in folders]

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> list[list[float]]:
        """Calibrated reward of every candidate of every row, in the rows' order of `responses`."""
        folds = [self._folds.fold_of(row["prompt"]) for row in rows]
        ratings: list[list[list[float]]] = [[] for _ in rows]
        for number, (rater, calibration) in enumerate(zip(self._raters, self._calibrations, strict=True)):
            places = [place for place, fold in enumerate(folds) if fold in (None, number)]
            if not places:
                continue
            name = f"{description}, fold {number + 1} of {self._folds.count}" if description else ""
            rated = rater.rate([rows[place] for place in places], name)
            for place, logits in zip(places, rated, strict=True):
                ratings[place].append([calibration.reward(logit) for logit in logits])
        return [[fmean(candidate) for candidate in zip(*models, strict=True)] for models in ratings]
