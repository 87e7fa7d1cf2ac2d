"""A reward model, named and loaded: what rates candidates, in this process or in another one."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clha_core.digest import folder_digest
from clha_core.models.loading import load_reward_model, load_tokenizer
from clha_core.params import RewardModelParams
from clha_core.rescoring.folded import FoldedRater
from clha_core.rescoring.rescore import rate_candidates
from clha_core.reward_models.folds import FOLDS


@dataclass(frozen=True)
class RaterSpec:
    """Everything that a score depends on but the row itself; small and picklable, so that workers can be sent it."""

    folder: Path
    text_format: str
    max_length: int
    batch_size: int
    dtype: str
    trust_remote_code: bool

    @property
    def digest(self) -> str:
        """sha256 over the model and how it reads a row, wherever its folder lies."""
        values = asdict(self) | {"folder": folder_digest(self.folder)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def load(self) -> "Rater | FoldedRater":
        """The reward model, or all of its folds, in memory, on the accelerator where there is one."""
        return FoldedRater(self) if (self.folder / FOLDS).exists() else Rater(self)


class Rater:
    """A loaded reward model."""

    def __init__(self, spec: RaterSpec) -> None:
        self.spec = spec
        self._model = load_reward_model(spec.folder, dtype=spec.dtype, trust_remote_code=spec.trust_remote_code)
        self._tokenizer = load_tokenizer(spec.folder, trust_remote_code=spec.trust_remote_code)

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> list[list[float]]:
        """Reward of every candidate of every row (`prompt`, `responses`), in the rows' order of `responses`."""
        return rate_candidates(
            rows,
            self._model,
            self._tokenizer,
            text_format=self.spec.text_format,
            max_length=self.spec.max_length,
            batch_size=self.spec.batch_size,
            description=description,
        )


def rescoring_rater(folder: Path, params: RewardModelParams) -> RaterSpec:
    """The rater of the training data."""
    return _spec(folder, params.text_format, params)


def evaluation_rater(folder: Path, params: RewardModelParams) -> RaterSpec:
    """The rater of generations."""
    return _spec(folder, params.eval_text_format, params)


def _spec(folder: Path, text_format: str, params: RewardModelParams) -> RaterSpec:
    return RaterSpec(
        folder=folder,
        text_format=text_format,
        max_length=params.max_length,
        batch_size=params.batch_size,
        dtype=params.dtype,
        trust_remote_code=params.trust_remote_code,
    )
