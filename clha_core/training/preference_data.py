"""Preference rows as token ids."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from clha_core.data.tables import labelled_pair
from clha_core.errors import UserError
from clha_core.tokenization import encode_row, framing_of
from clha_core.training.config import CLHAConfig

logger = logging.getLogger(__name__)
EXAMPLES = 5  # row ids that an error names


def labelled_dataset(rows: Iterable[Mapping[str, Any]]) -> Dataset:
    """Ingested or rescored rows in TRL's columns: the human label alone, no rewards."""
    labelled = []
    for row in rows:
        chosen, rejected = labelled_pair(row)
        labelled.append({"id": row["id"], "prompt": row["prompt"], "chosen": chosen, "rejected": rejected})
    return Dataset.from_list(labelled)


def candidates_of(row: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """Responses and rewards of a row: `responses` and `rewards`, or TRL's `chosen` and `rejected`.

    With `chosen` and `rejected` the rewards are `score_chosen` and `score_rejected` where the row has them, else
    1 and 0: the label alone.
    """
    if "responses" in row:
        return list(row["responses"]), list(row["rewards"])
    texts = [side if isinstance(side, str) else side[-1]["content"] for side in (row["chosen"], row["rejected"])]
    return texts, [row.get("score_chosen", 1.0), row.get("score_rejected", 0.0)]


def prompts_of(row: Mapping[str, Any], candidates: int) -> list[Sequence[Mapping[str, str]]]:
    """The prompt of each candidate as turns; a plain string is one user turn.

    Rows have `prompt`, or `prompts` where candidates come from different ones, one for each candidate.
    """
    if "prompt" not in row and "prompts" not in row:
        raise UserError(
            f"row {row.get('id', '?')} has no prompt: CLHATrainer needs the column prompt (trl.extract_prompt makes "
            "one from chosen and rejected; the stage ingest splits HH's dialogues)."
        )
    prompts = list(row["prompts"]) if row.get("prompts") is not None else [row["prompt"]] * candidates
    return [[{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt for prompt in prompts]


@dataclass(frozen=True)
class Truncation:
    """What of a split did not fit into the model's lengths; no row is dropped."""

    rows: int
    truncated_prompts: int
    truncated_responses: int


def tokenize_preferences(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: CLHAConfig, name: str
) -> tuple[Dataset, Truncation]:
    """Encode every row once.

    Returns:
        The columns of `clha_core.training.batches.Row`, `reference` empty; and how much was truncated.

    Raises:
        UserError: a row without a prompt, with fewer than two candidates, or with rewards that are missing or not
            finite.
    """
    truncated_prompts = truncated_responses = 0
    framing = framing_of(tokenizer, args.prompt_format)

    def encode(row: dict[str, Any], index: int) -> dict[str, Any]:
        nonlocal truncated_prompts, truncated_responses
        responses, rewards = candidates_of(row)
        prompts = prompts_of(row, len(responses))
        distinct = [prompt for at, prompt in enumerate(prompts) if prompt not in prompts[:at]]
        prompt_of = [distinct.index(prompt) for prompt in prompts]
        encoded = [
            encode_row(
                tokenizer,
                prompt,
                [response for response, own in zip(responses, prompt_of, strict=True) if own == at],
                prompt_format=args.prompt_format,
                max_length=args.max_length,
                max_prompt_length=args.max_prompt_length,
                framing=framing,
            )
            for at, prompt in enumerate(distinct)
        ]
        truncated_prompts += sum(part.truncated_prompt for part in encoded)
        truncated_responses += sum(part.truncated_responses for part in encoded)
        following = [iter(part.response_ids) for part in encoded]
        return {
            "id": str(row.get("id", index)),
            "prompts": [part.prompt_ids for part in encoded],
            "responses": [next(following[at]) for at in prompt_of],
            "prompt_of": prompt_of,
            "rewards": rewards,
            "reference": [],
        }

    tokenized = dataset.map(
        encode,
        with_indices=True,
        remove_columns=dataset.column_names,
        load_from_cache_file=False,
        keep_in_memory=True,
        desc=f"tokenize {name}",
    )
    check_rows(tokenized)
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
    return tokenized, Truncation(len(tokenized), truncated_prompts, truncated_responses)


def check_rows(rows: Dataset) -> None:
    """Raise UserError, with row ids, where there is no pair to compare or a reward is missing or not finite."""
    few, bad = [], []
    for row_id, rewards in zip(rows["id"], rows["rewards"], strict=True):
        if len(rewards) < 2:
            few.append(row_id)
        if any(reward is None or not math.isfinite(reward) for reward in rewards):
            bad.append(row_id)
    if few:
        raise UserError(f"{len(few)} rows have fewer than two candidates, for example {few[:EXAMPLES]}.")
    if bad:
        raise UserError(
            f"{len(bad)} rows have a reward that is not a finite number, for example {bad[:EXAMPLES]}: rescore them."
        )
