"""What is recorded of a training and of its evaluation, whoever the tracker is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from clha_core import paths
from clha_core.digest import file_digest, folder_digest
from clha_core.evaluation.summary import NOT_INDEPENDENT, is_marked
from clha_core.params import Params, flatten
from clha_core.tracking.interface import Tracker
from clha_core.tracking.lineage import (
    EVALUATION_DIGEST_TAG,
    JUDGE_TAG,
    MODEL_DIGEST_TAG,
    MODEL_MD5_TAG,
    locked_md5,
    origin_tags,
)


def run_name(params: Params) -> str:
    """What tells a run from its neighbours at a glance: the method, and what it is set by."""
    train = params.train
    gap = f"g{train.reward_gap:g}" if train.reward_gap_quantile is None else f"q{train.reward_gap_quantile:g}"
    settings = {
        "clha": f" m{train.margin:g} {gap} a{train.sft_weight:g} {train.logp_normalisation}",
        "sft": "",
        "pro": f" a{train.sft_weight:g}",
        "rrhf": f" a{train.sft_weight:g}",
        "simpo": f" b{train.beta:g} g{train.simpo_gamma:g}",
    }.get(train.method, f" b{train.beta:g}")
    return f"{train.method}{settings} lr{train.learning_rate:g}"


def describe_training(tracker: Tracker, params: Params, root: Path) -> None:
    """Parameters, origin, and the data with their DVC md5."""
    tracker.log_params(dict(flatten(params.model_dump(by_alias=True))))
    tracker.set_tags({"clha.method": params.train.method, **origin_tags(root)})
    locked = locked_md5(root)
    for folder, context in ((paths.INGESTED, "ingested"), (paths.RESCORED, "training")):
        if folder.as_posix() in locked:
            tracker.log_dataset(folder.as_posix(), root / folder, locked[folder.as_posix()], context)


def comparable_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an evaluation that tell one run from another on MLflow's compare page.

    All of the aligned model's, per subset, and its comparisons with base and SFT; the bounds of the intervals for the
    total only. The whole metrics.json is an artifact of the run.
    """
    figures = {}
    for comparison in ("aligned", "aligned_vs_base", "aligned_vs_sft"):
        for name, value in flatten(metrics[comparison]):
            subset, figure = name.split(".", 1)
            if subset == "total" or not figure.endswith(("_low", "_high")):
                suffix = comparison.removeprefix("aligned")
                figures[f"evaluate/{subset}/{figure}{suffix}"] = float(value)
    return figures


def reward_model_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """How well each reward model predicts labels that it has not learned from: `reward_models/<model>/<labels>/...`."""
    wanted = ("accuracy", "log_loss", "calibration_error")
    return {
        f"reward_models/{name.replace('.', '/')}": float(value)
        for name, value in flatten(metrics)
        if name.rpartition(".")[2] in wanted
    }


def noise_figures(noise: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the labels that tell one run's data from another's; metrics/rescore.json has the rest."""
    labels = ("contradiction_rate", "tie_rate", "length_correlation")
    found = {f"rescore/{name}": noise["labels"]["total"].get(name) for name in labels}
    for figure in ("precision", "recall"):
        found[f"rescore/flips_{figure}"] = noise.get("flips", {}).get(figure)
    return {name: float(value) for name, value in found.items() if value is not None}


def describe_evaluation(tracker: Tracker, root: Path) -> None:
    """Evaluation figures per subset, the report, its plots and tables; what labels and reward models are worth."""
    metrics, reward_models, noise = (
        json.loads((root / path).read_text(encoding="utf-8"))
        for path in (paths.EVALUATE_METRICS, paths.REWARD_MODEL_METRICS, paths.RESCORE_METRICS)
    )
    tracker.log_metrics(comparable_figures(metrics) | reward_model_figures(reward_models) | noise_figures(noise))
    tracker.log_artifact(root / paths.REWARD_MODEL_REPORT, "reward_models")
    tracker.log_artifact(root / paths.EVALUATE_METRICS, "evaluation")
    tracker.log_artifact(root / paths.EVALUATION, "evaluation")
    tracker.log_artifact(root / paths.RESCORE_METRICS, "rescore")
    tracker.log_artifact(root / paths.RESCORE_REPORT, "rescore")
    tracker.log_artifact(root / paths.TRAIN_CURVES, "curves")
    tracker.log_artifact(root / paths.SFT_CURVES, "curves")
    judge = NOT_INDEPENDENT if is_marked(metrics) else "another reward model than the one that rated the training data"
    tags = {EVALUATION_DIGEST_TAG: file_digest(root / paths.EVALUATION_PROTOCOL), JUDGE_TAG: judge}
    if md5 := locked_md5(root).get(paths.ALIGNED_MODEL.as_posix()):
        tags[MODEL_MD5_TAG] = md5
    tracker.set_tags(tags)


def rebuild_record(tracker: Tracker, params: Params, root: Path) -> None:
    """The record of a training that ran elsewhere (its outputs were pulled): from what DVC kept of it."""
    describe_training(tracker, params, root)
    for line in pd.read_csv(root / paths.TRAIN_CURVES).to_dict("records"):
        step = int(line.pop("step"))
        tracker.log_metrics({str(name): value for name, value in line.items() if pd.notna(value)}, step=step)
    tracker.set_tags({MODEL_DIGEST_TAG: folder_digest(root / paths.ALIGNED_MODEL), "clha.record": "rebuilt"})
