"""Stage `reward_models`: the model that rescores, and the other one that evaluates."""

from pathlib import Path
from typing import Any

from clha_core import paths
from clha_core.data.tables import read_rows
from clha_core.models.loading import follow_pointer, load_tokenizer, write_pointer
from clha_core.params import Params
from clha_core.rescoring.checks import check_scores
from clha_core.rescoring.rater import Rater, RaterSpec, evaluation_rater, rescoring_rater
from clha_core.stages.context import prepare_torch, write_metrics


def run(params: Params, root: Path = Path()) -> None:
    """Write models/reward and models/eval_reward, and how often each agrees with the labels of validation.

    Reward models that are trained here learn from one half of the train prompts each, so that the evaluation is not
    by a copy of the judge that the policy was trained to please.
    """
    reward = params.reward_model
    prepare_torch(params, reward.seed)
    validation = read_rows(root / paths.INGESTED / "validation.parquet")
    models = (
        (rescoring_rater(root / paths.REWARD_MODEL, reward), reward.model, reward.revision),
        (evaluation_rater(root / paths.EVAL_REWARD_MODEL, reward), reward.eval_model, reward.eval_revision),
    )
    metrics = {}
    for half, (rater, model, revision) in enumerate(models):
        if model == "scratch":
            _train(params, root, rater, half)
        else:
            write_pointer(model, revision, rater.folder)
        metrics[rater.folder.name] = {"label_agreement": _label_agreement(rater.load(), validation)}
    write_metrics(metrics, root / paths.REWARD_MODEL_METRICS)


def _train(params: Params, root: Path, rater: RaterSpec, half: int) -> None:
    from clha_core.models.reward_training import half_of, train_reward_model

    base = root / paths.BASE_MODEL
    tokenizer = load_tokenizer(base, trust_remote_code=params.reward_model.trust_remote_code)
    rows = [row for row in read_rows(root / paths.INGESTED / "train.parquet") if half_of(row) == half]
    model = train_reward_model(
        rows,
        follow_pointer(base),
        tokenizer,
        params.reward_model,
        text_format=rater.text_format,
        max_length=rater.max_length,
        seed=params.reward_model.seed + half,
        description=rater.folder.name,
    )
    model.save_pretrained(rater.folder)
    tokenizer.save_pretrained(rater.folder)


def _label_agreement(rater: Rater, rows: list[dict[str, Any]]) -> float:
    rated = rater.rate(rows, f"{rater.spec.folder.name}: validation")
    check_scores(rated, [row["id"] for row in rows])
    agreed = [
        rewards[row["sources"].index("chosen")] > rewards[row["sources"].index("rejected")]
        for row, rewards in zip(rows, rated, strict=True)
    ]
    return round(sum(agreed) / len(agreed), 6)
