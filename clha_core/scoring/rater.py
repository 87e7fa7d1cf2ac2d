"""A reward model, named and loaded: what rates candidates, in this process or in another one."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from clha_core.digest import folder_digest
from clha_core.errors import UserError
from clha_core.models.loading import load_reward_model, load_tokenizer
from clha_core.params import RewardModelParams
from clha_core.scoring.checks import check_finite
from clha_core.scoring.entries import Reading, RewardModelEntry, resolve
from clha_core.scoring.folded import FoldedRater
from clha_core.scoring.folds import FOLDS
from clha_core.scoring.score import RewardScorer
from clha_core.scoring.text_formats import reward_input_ids

# Rows tokenised at a time: enough for batches of equal lengths, and memory does not grow with the file.
WINDOW = 1024


@dataclass(frozen=True)
class RaterSpec:
    """Everything that a score depends on but the row itself; small and picklable, so that workers can be sent it."""

    folder: Path
    text_format: str
    max_length: int
    tokens_per_batch: int
    dtype: str
    trust_remote_code: bool
    head: str | None = None
    reading: Reading = "last_token"

    @property
    def digest(self) -> str:
        """sha256 over the model and how it reads a row, wherever its folder lies."""
        values = asdict(self) | {"folder": folder_digest(self.folder)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def load(self, device: torch.device | str | None = None) -> "Rater | FoldedRater":
        """The reward model, or all of its folds, in memory: on a device or, without one named, on the accelerator where
        there is one.

        Raises:
            UserError: it is not here, or is not the reward model that its name and the parameters say.
        """
        return FoldedRater(self, device) if (self.folder / FOLDS).exists() else Rater(self, device)


class Rater:
    """A loaded reward model."""

    def __init__(self, spec: RaterSpec, device: torch.device | str | None = None) -> None:
        self.spec = spec
        model = load_reward_model(
            spec.folder, dtype=spec.dtype, trust_remote_code=spec.trust_remote_code, device=device
        )
        if spec.head is not None and not hasattr(model, spec.head):
            raise UserError(
                f"{model.config.name_or_path} is a {type(model).__name__} without the head {spec.head!r}, which one of "
                "that name has: check reward_model.model; under another folder name it is what you say that it is."
            )
        # Encoders with embeddings for the first and the second text would get the first one's for both.
        if spec.text_format == "question_answer" and getattr(model.config, "type_vocab_size", 0) > 1:
            raise UserError(
                f"{model.config.name_or_path} tells question and answer apart by token types, which are not supported: "
                "choose a reward model without them (type_vocab_size 0, as DeBERTa-v3)."
            )
        self._tokenizer = load_tokenizer(spec.folder, trust_remote_code=spec.trust_remote_code)
        self._scorer = RewardScorer(
            model,
            pad_token_id=self._tokenizer.pad_token_id,
            tokens_per_batch=spec.tokens_per_batch,
            max_length=spec.max_length,
            reading=spec.reading,
        )

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> list[list[float]]:
        """Reward of every candidate of every row (`prompt`, `responses`, `id`), in the rows' order of `responses`.

        A score does not depend on the other rows. Whether all scores together can be rewards is for
        `clha_core.scoring.checks.check_scores` to say, once they are together.

        Args:
            description: of the progress bar; empty for none.

        Raises:
            UserError: a score that is not finite, with the ids of its rows.
        """
        rewards: list[list[float]] = []
        with tqdm(
            total=sum(len(row["responses"]) for row in rows), desc=description, unit="text", disable=not description
        ) as progress:
            for start in range(0, len(rows), WINDOW):
                window = rows[start : start + WINDOW]
                rated = self._scorer.score([self._input_ids(row) for row in window], progress.update)
                check_finite(rated, [str(row.get("id", start + at)) for at, row in enumerate(window)])
                rewards += rated
        return rewards

    def _input_ids(self, row: Mapping[str, Any]) -> list[list[int]]:
        return [
            reward_input_ids(self._tokenizer, row["prompt"], text, self.spec.text_format, self.spec.max_length)
            for text in row["responses"]
        ]


def rescoring_rater(folder: Path, params: RewardModelParams) -> RaterSpec:
    """The rater of the training data.

    Raises:
        UserError: the parameters leave something to an entry that is not there, see `clha_core.scoring.entries`.
    """
    return _spec(folder, params.model, params.text_format, params)


def evaluation_rater(folder: Path, params: RewardModelParams) -> RaterSpec:
    """The rater of generations.

    Raises:
        UserError: as `rescoring_rater`.
    """
    return _spec(folder, params.eval_model, params.eval_text_format, params)


def _spec(folder: Path, model: str, text_format: str, params: RewardModelParams) -> RaterSpec:
    entry: RewardModelEntry = resolve(model, text_format=text_format, max_length=params.max_length, dtype=params.dtype)
    return RaterSpec(
        folder=folder,
        text_format=entry.text_format,
        max_length=entry.max_length,
        tokens_per_batch=params.tokens_per_batch,
        dtype=entry.dtype,
        trust_remote_code=params.trust_remote_code,
        head=entry.head,
        reading=entry.reading,
    )
