"""Stage `reward_models`: the model that rescores, and the other one that evaluates."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clha_core import paths
from clha_core.data.tables import read_rows
from clha_core.models.loading import follow_pointer, load_tokenizer, write_pointer
from clha_core.params import TRAIN, Params
from clha_core.reward_models.cross_fit import Trained, pair_rewards, train_cross_fitted
from clha_core.reward_models.identity import judge_rated_training_data
from clha_core.reward_models.quality import label_quality
from clha_core.reward_models.report import write_reward_report
from clha_core.scoring.folds import Folds
from clha_core.scoring.rater import RaterSpec, evaluation_rater, rescoring_rater
from clha_core.stages.context import prepare_torch, write_metrics


def run(params: Params, root: Path = Path()) -> None:
    """Write models/reward and models/eval_reward, a report on both, and its figures.

    Where both are trained here, each learns from one half of the train prompts, so that the evaluation is not by a copy
    of the judge that the policy was trained to please. Only the one that rates the training data is cross-fitted: the
    other one meets no label that it has learned from.
    """
    reward = params.reward_model
    prepare_torch(params, reward.seed)
    validation = read_rows(root / paths.INGESTED / "validation.parquet")
    models = (
        (rescoring_rater(root / paths.REWARD_MODEL, reward), reward.model, reward.revision, reward.train.folds),
        (evaluation_rater(root / paths.EVAL_REWARD_MODEL, reward), reward.eval_model, reward.eval_revision, 1),
    )
    learners = [spec.folder for spec, model, _, _ in models if model == TRAIN]
    differences: dict[tuple[str, str], NDArray[np.float64]] = {}
    curves: dict[str, pd.DataFrame] = {}
    temperatures: dict[str, list[float]] = {}
    for spec, model, revision, count in models:
        name = spec.folder.name
        shutil.rmtree(spec.folder, ignore_errors=True)  # no fold of an earlier training stays
        trained = None
        if model == TRAIN:
            folds = Folds(part=learners.index(spec.folder), parts=len(learners), count=count, seed=reward.seed)
            trained = _train(params, root, spec, folds)
        else:
            write_pointer(model, revision, spec.folder)
        rewards = pair_rewards(spec.load(), validation, f"{name}: validation")
        differences[name, "validation"] = rewards[:, 0] - rewards[:, 1]
        if trained:
            curves |= trained.curves
            temperatures[name] = trained.temperatures
            if trained.unseen.size:
                differences[name, "unseen_train"] = trained.unseen
    judge_rated_training_data(
        root / paths.REWARD_MODEL, root / paths.EVAL_REWARD_MODEL, allowed=reward.allow_same_eval_model
    )
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for (name, labels), difference in differences.items():
        metrics.setdefault(name, {})[labels] = label_quality(difference)
    write_metrics(metrics, root / paths.REWARD_MODEL_METRICS)
    write_reward_report(differences, curves, temperatures, root / paths.REWARD_MODEL_REPORT)


def _train(params: Params, root: Path, spec: RaterSpec, folds: Folds) -> Trained:
    base = root / paths.BASE_MODEL
    return train_cross_fitted(
        read_rows(root / paths.INGESTED / "train.parquet"),
        folds,
        follow_pointer(base),
        load_tokenizer(base, trust_remote_code=params.reward_model.trust_remote_code),
        params.reward_model,
        spec,
        bf16=params.policy.dtype == "bfloat16",
    )
