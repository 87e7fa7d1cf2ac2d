"""Answers of a model to many prompts, greedy or sampled."""

from collections.abc import Sequence

from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clha_core.errors import UserError
from clha_core.evaluation.generation.continuous import Continuous
from clha_core.evaluation.generation.decoding import Decoding
from clha_core.evaluation.generation.endings import ROLE_MARKERS, Endings, Generation, end_token_ids
from clha_core.evaluation.generation.slots import has_slots
from clha_core.evaluation.generation.whole_batches import whole_batches
from clha_core.evaluation.sampling import Sampler, Sampling


def generate_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    sampling: Sampling | None = None,
    stop_markers: Sequence[str] = ROLE_MARKERS,
    description: str | None = "generate",
) -> list[Generation]:
    """Answer every prompt, greedily or by `sampling`; the answers come in the order of the prompts.

    The longest prompts are answered first, so that memory runs out at the start if at all, beside others of similar
    length. Nothing but the prompt (and its seed) decides an answer: not the batch, not the sampling settings that a
    checkpoint brings along (temperature, repetition penalty and the like are ignored). The model keeps its
    mode and its generation settings.

    Args:
        prompt_ids: token ids of each prompt, special tokens included, not padded.
        max_new_tokens: tokens per answer, at most.
        batch_size: prompts answered at once.
        sampling: None takes the likeliest token every time.
        stop_markers: texts that end an answer; it is cut before the first.
        description: label of the progress bar; None shows none.

    Raises:
        UserError: a prompt without tokens, or a tokenizer with neither a padding nor an end-of-sequence token.
    """
    empty = [index for index, ids in enumerate(prompt_ids) if not ids]
    if empty:
        raise UserError(
            f"{len(empty)} prompts have no tokens (the first is number {empty[0]}): leave them out of the data."
        )
    if not prompt_ids:
        return []
    eos_ids = end_token_ids(model.generation_config, tokenizer)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(eos_ids), None)
    if pad_id is None:
        raise UserError(
            "The tokenizer has neither a padding nor an end-of-sequence token: set eos_token in its "
            "tokenizer_config.json."
        )
    decoding = Decoding(
        Endings(tokenizer, eos_ids, stop_markers),
        max_new_tokens,
        batch_size,
        Sampler(sampling, max_new_tokens) if sampling else None,
        pad_id,
    )
    answer = Continuous if has_slots(model.config) else whole_batches
    answers: dict[int, Generation] = {}
    was_training = model.training
    model.eval()
    try:
        with tqdm(total=len(prompt_ids), desc=description, unit="prompt", disable=description is None) as progress:
            for index, generation in answer(model, prompt_ids, decoding):
                answers[index] = generation
                progress.update()
    finally:
        model.train(was_training)
    return [answers[index] for index in range(len(prompt_ids))]
