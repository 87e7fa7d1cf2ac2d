"""Which flipped labels of the embedded sample a reward model finds: trained on all labels, or cross-fitted.

    python -m benchmarks.cross_fitting

It needs `data/ingested` and `models/base` of the sample (`dvc repro policy`), trains the rescoring reward model of
params.yaml once for each number of folds and seed, rates the train split, and prints a Markdown table of means over
seeds. The truth is `clha_core.sample.dialogues.label_truth`, which no model sees.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from scipy import stats

from clha_core import paths
from clha_core.data.tables import read_rows
from clha_core.models.loading import follow_pointer, load_tokenizer
from clha_core.params import Params, load_params
from clha_core.reward_models.cross_fit import pair_rewards, train_cross_fitted
from clha_core.reward_models.quality import label_quality
from clha_core.sample.dialogues import LabelTruth, label_truth
from clha_core.scoring.folds import Calibration, Folds, read_folds, write_folds
from clha_core.scoring.rater import rescoring_rater
from clha_core.stages.context import prepare_torch

UNCALIBRATED = Calibration(zero=0.0, temperature=1.0)


def truth_of(rows: Sequence[dict[str, Any]], params: Params) -> list[LabelTruth]:
    """What is known of the labels of ingested rows; an id ends in the row's number in its source."""
    truth = list(label_truth(params.sample, "train"))
    return [truth[int(row["id"].rpartition("/")[2])] for row in rows]


def figures(difference: NDArray[np.float64], truth: Sequence[LabelTruth]) -> dict[str, float]:
    """How labels and truth agree with the reward of chosen minus rejected.

    A flip is found where the reward model prefers the rejected response. AUC: the chance that a flipped label has a
    lower difference than one that is not flipped.
    """
    flipped = np.array([row.flipped for row in truth])
    gold = np.array([row.gold[0] - row.gold[1] for row in truth])
    found = difference < 0
    quality = label_quality(difference)
    ranks = stats.mannwhitneyu(difference[~flipped], difference[flipped]).statistic
    return {
        "label agreement": quality["accuracy"],
        "log loss": quality["log_loss"],
        "calibration error": quality["calibration_error"],
        "true order": float((np.sign(difference) == np.sign(gold))[gold != 0].mean()),
        "precision": float(flipped[found].mean()),
        "recall": float(found[flipped].mean()),
        "AUC": float(ranks / (flipped.sum() * (~flipped).sum())),
    }


def main(
    folds: Annotated[list[int], typer.Option(help="Numbers of folds to compare.")] = [1, 2, 3],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each.")] = 2,
    epochs: Annotated[float | None, typer.Option(help="Instead of those of params.yaml.")] = None,
) -> None:
    """Train, rate, and print the table."""
    params = load_params()
    rows = read_rows(paths.INGESTED / "train.parquet")
    truth = truth_of(rows, params)
    base, tokenizer = follow_pointer(paths.BASE_MODEL), load_tokenizer(paths.BASE_MODEL)
    lines = []
    for seed in range(seeds):
        for count in folds:
            train = params.reward_model.train.model_copy(update={"epochs": epochs or params.reward_model.train.epochs})
            reward = params.reward_model.model_copy(update={"seed": params.reward_model.seed + seed, "train": train})
            prepare_torch(params, reward.seed)
            split = Folds(part=0, parts=2, count=count, seed=reward.seed)
            own = np.array([split.fold_of(row["prompt"]) is not None for row in rows])
            with tempfile.TemporaryDirectory() as folder:
                spec = replace(rescoring_rater(Path(folder), reward), folder=Path(folder))
                start = time.perf_counter()
                train_cross_fitted(rows, split, base, tokenizer, reward, spec, bf16=False)
                seconds = time.perf_counter() - start
                kinds: list[tuple[str, list[Calibration] | None]] = [("", None)]
                if count > 1:
                    _, fitted = read_folds(spec.folder)
                    kinds = [("calibrated", fitted), ("raw", [UNCALIBRATED] * count)]
                for kind, calibrations in kinds:
                    if calibrations:
                        write_folds(spec.folder, split, calibrations)
                    rewards = pair_rewards(spec.load(), rows, f"seed {seed}, {count} folds")
                    difference = rewards[:, 0] - rewards[:, 1]
                    for name, part in (("learned from", own), ("other half", ~own), ("all", own | True)):
                        known = [row for row, inside in zip(truth, part, strict=True) if inside]
                        found = figures(difference[part], known) | {"seconds": seconds}
                        lines.append({"folds": count, "rewards": kind, "rows": name, "seed": seed, **found})
    table = pd.DataFrame(lines).groupby(["rows", "folds", "rewards"]).mean().drop(columns="seed")
    print(table.round(3).reset_index().to_markdown(index=False))


if __name__ == "__main__":
    typer.run(main)
