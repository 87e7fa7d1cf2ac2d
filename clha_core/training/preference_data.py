"""Preference rows as token ids, and batches of them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from clha_core.errors import UserError
from clha_core.tokenization import encode_row
from clha_core.training.config import CLHAConfig

logger = logging.getLogger(__name__)


def candidates_of(row: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """Responses and rewards of a row: `responses` and `rewards`, or TRL's `chosen` and `rejected`.

    With `chosen` and `rejected` the rewards are `score_chosen` and `score_rejected` where the row has them, else
    1 and 0: the label alone.
    """
    if "responses" in row:
        return list(row["responses"]), list(row["rewards"])
    texts = [side if isinstance(side, str) else side[-1]["content"] for side in (row["chosen"], row["rejected"])]
    return texts, [row.get("score_chosen", 1.0), row.get("score_rejected", 0.0)]


def prompt_turns(row: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    """The prompt as turns; a plain string is one user turn."""
    prompt = row["prompt"]
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def tokenize_preferences(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: CLHAConfig, name: str) -> Dataset:
    """Encode every row once; says how many prompts and responses were truncated.

    Returns:
        Columns `id`, `prompt_ids`, `response_ids` (one list per candidate), `rewards`.

    Raises:
        UserError: a row without rewards that are finite numbers, or rows with different numbers of candidates.
    """
    truncated_prompts = truncated_responses = 0

    def encode(row: dict[str, Any], index: int) -> dict[str, Any]:
        nonlocal truncated_prompts, truncated_responses
        responses, rewards = candidates_of(row)
        encoded = encode_row(
            tokenizer,
            prompt_turns(row),
            responses,
            prompt_format=args.prompt_format,
            max_length=args.max_length,
            max_prompt_length=args.max_prompt_length,
        )
        truncated_prompts += encoded.truncated_prompt
        truncated_responses += encoded.truncated_responses
        return {
            "id": str(row.get("id", index)),
            "prompt_ids": encoded.prompt_ids,
            "response_ids": encoded.response_ids,
            "rewards": rewards,
        }

    tokenized = dataset.map(
        encode,
        with_indices=True,
        remove_columns=dataset.column_names,
        load_from_cache_file=False,
        keep_in_memory=True,
        desc=f"tokenize {name}",
    )
    check_rewards(tokenized)
    if truncated_prompts or truncated_responses:
        logger.warning(
            "%s: %d prompts and %d responses of %d rows did not fit into %d tokens (%d of prompt) and were truncated",
            name,
            truncated_prompts,
            truncated_responses,
            len(tokenized),
            args.max_length,
            args.max_prompt_length,
        )
    return tokenized


def check_rewards(rows: Dataset) -> None:
    """Raise UserError, with row ids, where a reward is missing or not finite or the candidate counts differ."""
    counts = {len(rewards) for rewards in rows["rewards"]}
    if len(counts) > 1 or min(counts, default=2) < 2:
        raise UserError(f"every row needs the same number of candidates, two or more; the rows have {sorted(counts)}.")
    bad = [
        row_id
        for row_id, rewards in zip(rows["id"], rows["rewards"], strict=True)
        if any(reward is None or not torch.isfinite(torch.tensor(reward)) for reward in rewards)
    ]
    if bad:
        raise UserError(
            f"{len(bad)} rows have a reward that is not a finite number, for example {bad[:5]}: rescore them."
        )


@dataclass
class PreferenceCollator:
    """Pads all candidates of a batch into one (batch * n, tokens) block, candidates of a row side by side.

    Padding is on the right and masked out, so that a candidate's log-probs do not depend on its batch mates.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        sequences = [(row["prompt_ids"], ids) for row in rows for ids in row["response_ids"]]
        width = max(len(prompt) + len(response) for prompt, response in sequences)
        input_ids = torch.full((len(sequences), width), self.pad_token_id)
        attention_mask = torch.zeros((len(sequences), width), dtype=torch.long)
        response_mask = torch.zeros((len(sequences), width), dtype=torch.bool)
        for index, (prompt, response) in enumerate(sequences):
            end = len(prompt) + len(response)
            input_ids[index, :end] = torch.tensor(prompt + response)
            attention_mask[index, :end] = 1
            response_mask[index, len(prompt) : end] = True
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "response_mask": response_mask,
            "rewards": torch.tensor([row["rewards"] for row in rows], dtype=torch.float32),
        }
