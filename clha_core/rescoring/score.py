"""Scores of token sequences by a reward model."""

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from clha_core.errors import UserError
from clha_core.padding import pad_right


@torch.inference_mode()
def score_sequences(
    model: PreTrainedModel,
    sequences: Sequence[list[int]],
    *,
    pad_token_id: int,
    eos_token_id: int | None,
    batch_size: int,
    description: str = "score",
) -> list[float]:
    """One logit per sequence, in the order given.

    Batches are formed by length, so that little is padding; a score does not depend on its batch mates.

    Args:
        model: a sequence classification model with one logit, in evaluation mode.
        sequences: token ids, complete with special tokens.
        pad_token_id, eos_token_id: of the model's tokenizer.
        description: of the progress bar; empty for none.

    Raises:
        UserError: a score that is not finite, or all scores equal; with positions.
    """
    order = sorted(range(len(sequences)), key=lambda index: (len(sequences[index]), index))
    scores = [0.0] * len(sequences)
    device = next(model.parameters()).device
    configured_pad = model.config.pad_token_id
    with tqdm(total=len(sequences), desc=description, unit="text", disable=not description) as progress:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = [sequences[index] for index in chosen]
            pad = pad_token_id if pad_token_id != eos_token_id else unused_token_id(batch)
            model.config.pad_token_id = pad  # transformers finds the last real token by this id
            input_ids, attention_mask = pad_right(batch, pad)
            logits = model(input_ids=input_ids.to(device), attention_mask=attention_mask.to(device)).logits
            for index, score in zip(chosen, logits.float().view(-1).tolist(), strict=True):
                scores[index] = score
            progress.update(len(chosen))
    model.config.pad_token_id = configured_pad
    check_scores(scores)
    return scores


def unused_token_id(sequences: Sequence[list[int]]) -> int:
    """The smallest token id that no sequence has.

    Where a tokenizer pads with its EOS, transformers would take a closing EOS for padding and read the score one
    token early. Padding with an id that does not occur avoids that; the mask hides it like any padding.
    """
    used = set().union(*sequences)
    return next(token for token in range(len(used) + 1) if token not in used)


def check_scores(scores: Sequence[float]) -> None:
    """Raise UserError for scores that cannot be rewards."""
    values = torch.tensor(scores)
    bad = (~values.isfinite()).nonzero().view(-1).tolist()
    if bad:
        raise UserError(
            f"the reward model gave {len(bad)} scores that are not finite, first at positions {bad[:5]}: "
            "try reward_model.dtype float32, and check that the checkpoint is complete."
        )
    if len(scores) > 1 and bool((values == values[0]).all()):
        raise UserError(
            "the reward model gives every text the same score: check reward_model.text_format and the head."
        )
