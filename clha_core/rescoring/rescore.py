"""Reward rescoring: rate every candidate, rank each row by reward. Labels become ratings (METHOD.md, step 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clha_core.data.tables import RESCORED_SCHEMA
from clha_core.rescoring.score import score_sequences
from clha_core.rescoring.text_formats import reward_input_ids


def rate_candidates(
    rows: Sequence[Mapping[str, Any]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_format: str,
    max_length: int,
    batch_size: int,
    description: str,
) -> list[list[float]]:
    """Reward of every candidate of every row, in the rows' order of `responses`."""
    sequences = [
        reward_input_ids(tokenizer, row["prompt"], response, text_format, max_length)
        for row in rows
        for response in row["responses"]
    ]
    scores = iter(
        score_sequences(
            model,
            sequences,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            batch_size=batch_size,
            description=description,
        )
    )
    return [[next(scores) for _ in row["responses"]] for row in rows]


def rank_candidates(rows: list[dict[str, Any]], rewards: list[list[float]]) -> pa.Table:
    """Rows with their candidates sorted by descending reward; ties keep the order of the data (chosen first).

    Returns:
        A table of RESCORED_SCHEMA.
    """
    ranked = []
    for row, row_rewards in zip(rows, rewards, strict=True):
        order = sorted(range(len(row_rewards)), key=lambda index: -row_rewards[index])
        ranked.append(
            row
            | {name: [row[name][index] for index in order] for name in ("responses", "sources", "origins")}
            | {"rewards": [row_rewards[index] for index in order]}
        )
    return pa.Table.from_pylist(ranked, schema=RESCORED_SCHEMA)
