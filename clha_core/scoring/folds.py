"""Cross-fitting: which labels a reward model learns from, and which of its fold models rates a row.

Both are decided by the prompt alone, so that every process agrees, rows of one prompt stay together, and nothing moves
when rows are added.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from clha_core.data.dialogue import Turn
from clha_core.data.splits import prompt_key

FOLDS = "folds.json"


@dataclass(frozen=True)
class Folds:
    """A reward model's share of all prompts, and the folds within it.

    Attributes:
        part, parts: the share is number `part` of `parts` equal ones; reward models that are trained together learn
            from different shares.
        count: folds of the share. Fold model k learns from all of the share but fold k.
        seed: of the hash that draws shares and folds.
    """

    part: int
    parts: int
    count: int
    seed: int

    def fold_of(self, prompt: Iterable[Turn]) -> int | None:
        """The fold of a prompt, which is also the number of the one model that did not learn from it.

        None for a prompt outside of the share: no model learned from it.
        """
        key = prompt_key(prompt, self.seed)
        if int.from_bytes(key[:8], "big") % self.parts != self.part:
            return None
        return int.from_bytes(key[8:], "big") % self.count


@dataclass(frozen=True)
class Calibration:
    """How a fold model's logits become rewards that mean the same in every fold.

    Attributes:
        zero: the logit of an average candidate.
        temperature: logits to one unit of log-odds.
    """

    zero: float
    temperature: float

    def reward(self, logit: float) -> float:
        """0 for an average candidate; a difference is the log-odds that a label prefers the one to the other."""
        return (logit - self.zero) / self.temperature


def fold_folder(folder: Path, fold: int) -> Path:
    """Where the model that did not learn from `fold` is."""
    return folder / f"fold-{fold}"


def write_folds(folder: Path, folds: Folds, calibrations: Iterable[Calibration]) -> None:
    """Write folds.json beside the fold models."""
    content = asdict(folds) | {"calibrations": [asdict(calibration) for calibration in calibrations]}
    (folder / FOLDS).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_folds(folder: Path) -> tuple[Folds, list[Calibration]]:
    """What `write_folds` wrote."""
    content = json.loads((folder / FOLDS).read_text(encoding="utf-8"))
    calibrations = [Calibration(**calibration) for calibration in content.pop("calibrations")]
    return Folds(**content), calibrations
