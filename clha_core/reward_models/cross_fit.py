"""Trains a reward model, or one for each fold, and rates every label by a model that did not learn from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from clha_core.data.tables import labelled_pair
from clha_core.errors import UserError
from clha_core.models.loading import ModelSource
from clha_core.params import RewardModelParams
from clha_core.reward_models.calibration import fit_calibration
from clha_core.reward_models.training import train_reward_model
from clha_core.scoring.checks import check_scores
from clha_core.scoring.folded import FoldedRater
from clha_core.scoring.folds import Folds, fold_folder, write_folds
from clha_core.scoring.rater import Rater, RaterSpec
from clha_core.training.curves import curve_table

Rows = Sequence[Mapping[str, Any]]
UNSEEN_AT_MOST = 2000  # rows rated for a held-out accuracy on train: its interval is then within 2.2 points


@dataclass(frozen=True)
class Trained:
    """What is known of a trained reward model.

    Attributes:
        curves: by model ("reward", or "reward, fold 1 of 3"), its log lines.
        unseen: (pairs,) reward of chosen minus reward of rejected, of train labels by models that did not learn them.
        temperatures: of the fold models.
    """

    curves: dict[str, pd.DataFrame]
    unseen: NDArray[np.float64]
    temperatures: list[float]


def pair_rewards(rater: Rater | FoldedRater, rows: Rows, description: str) -> NDArray[np.float64]:
    """(rows, 2) rewards of the chosen and of the rejected response.

    Raises:
        UserError: rewards that cannot be rewards, see check_scores().
    """
    pairs = [{"id": row["id"], "prompt": row["prompt"], "responses": list(labelled_pair(row))} for row in rows]
    if not pairs:
        return np.empty((0, 2))
    rewards = rater.rate(pairs, description)
    check_scores(rewards, [pair["id"] for pair in pairs])
    return np.array(rewards, dtype=np.float64)


def train_cross_fitted(
    rows: Rows,
    folds: Folds,
    base: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    params: RewardModelParams,
    spec: RaterSpec,
    *,
    bf16: bool,
) -> Trained:
    """Write the folder of `spec`: fold models and folds.json, or for one fold a plain checkpoint.

    Args:
        rows: all ingested rows of train.

    Raises:
        UserError: a fold without rows.
    """
    name = spec.folder.name
    of_row = [folds.fold_of(row["prompt"]) for row in rows]
    by_fold = [[row for row, fold in zip(rows, of_row, strict=True) if fold == number] for number in range(folds.count)]
    empty = [number for number, members in enumerate(by_fold) if not members]
    if empty:
        raise UserError(
            f"{name}: {len(empty)} of {folds.count} folds have no prompt; the model's share of train has "
            f"{sum(map(len, by_fold))} rows. Lower reward_model.train.folds, or take more data."
        )
    curves: dict[str, pd.DataFrame] = {}

    def train(learned: Rows, target: RaterSpec, description: str) -> None:
        model, log = train_reward_model(
            learned,
            base,
            tokenizer,
            params,
            text_format=spec.text_format,
            max_length=spec.max_length,
            bf16=bf16,
            seed=params.seed + folds.part,
            description=description,
        )
        # In the precision that it will be read in.
        torch.nn.Module.to(model, getattr(torch, spec.dtype)).save_pretrained(target.folder)
        tokenizer.save_pretrained(target.folder)
        curves[description] = curve_table(log)

    if folds.count == 1:
        train(by_fold[0], spec, name)
        others = [row for row, fold in zip(rows, of_row, strict=True) if fold is None]
        sample = others[:: -(-len(others) // UNSEEN_AT_MOST) or 1]
        rewards = pair_rewards(spec.load(), sample, f"{name}: unseen labels")
        return Trained(curves, rewards[:, 0] - rewards[:, 1], [])

    calibrations, unseen = [], []
    for number, held_out in enumerate(by_fold):
        description = f"{name}, fold {number + 1} of {folds.count}"
        target = replace(spec, folder=fold_folder(spec.folder, number))
        train([row for other in by_fold if other is not held_out for row in other], target, description)
        logits = pair_rewards(target.load(), held_out, f"{description}: its own labels")
        calibration = fit_calibration(logits[:, 0], logits[:, 1])
        calibrations.append(calibration)
        unseen.append((logits[:, 0] - logits[:, 1]) / calibration.temperature)
    write_folds(spec.folder, folds, calibrations)
    return Trained(curves, np.concatenate(unseen), [calibration.temperature for calibration in calibrations])
