"""Stage `reward_models`: the model that rescores, and the other one that evaluates."""

from pathlib import Path
from typing import Any

from clha_core import paths
from clha_core.data.tables import read_rows
from clha_core.models.loading import follow_pointer, load_reward_model, load_tokenizer, write_pointer
from clha_core.params import Params
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
        (paths.REWARD_MODEL, reward.model, reward.revision, reward.text_format, 0),
        (paths.EVAL_REWARD_MODEL, reward.eval_model, reward.eval_revision, reward.eval_text_format, 1),
    )
    metrics = {}
    for folder, model, revision, text_format, half in models:
        if model == "scratch":
            _train(params, root, root / folder, text_format, half)
        else:
            write_pointer(model, revision, root / folder)
        metrics[folder.name] = {"label_agreement": _label_agreement(params, root / folder, text_format, validation)}
    write_metrics(metrics, root / paths.REWARD_MODEL_METRICS)


def _train(params: Params, root: Path, out: Path, text_format: str, half: int) -> None:
    from clha_core.models.reward_training import half_of, train_reward_model

    base = root / paths.BASE_MODEL
    tokenizer = load_tokenizer(base, trust_remote_code=params.reward_model.trust_remote_code)
    rows = [row for row in read_rows(root / paths.INGESTED / "train.parquet") if half_of(row) == half]
    model = train_reward_model(
        rows,
        follow_pointer(base),
        tokenizer,
        params.reward_model,
        text_format=text_format,
        seed=params.reward_model.seed + half,
        description=out.name,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _label_agreement(params: Params, folder: Path, text_format: str, rows: list[dict[str, Any]]) -> float:
    from clha_core.rescoring.rescore import rate_candidates

    reward = params.reward_model
    model = load_reward_model(folder, dtype=reward.dtype, trust_remote_code=reward.trust_remote_code)
    tokenizer = load_tokenizer(folder, trust_remote_code=reward.trust_remote_code)
    rewards = rate_candidates(
        rows,
        model,
        tokenizer,
        text_format=text_format,
        max_length=reward.max_length,
        batch_size=reward.batch_size,
        description=f"{folder.name}: validation",
    )
    agreed = [
        row_rewards[row["sources"].index("chosen")] > row_rewards[row["sources"].index("rejected")]
        for row, row_rewards in zip(rows, rewards, strict=True)
    ]
    return round(sum(agreed) / len(agreed), 6)
