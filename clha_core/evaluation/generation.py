"""Answers of a model to many prompts, greedy or sampled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from clha_core.errors import UserError
from clha_core.evaluation.sampling import Sampling, samplers
from clha_core.tokenization import response_frame

ROLE_MARKERS = ("\n\nHuman:", "\n\nAssistant:")


@dataclass(frozen=True)
class Generation:
    """One answer."""

    text: str  # stripped, without the role marker that ended it and without special tokens
    finished: bool  # ended by an end-of-sequence token or a role marker, not by the length limit
    tokens: int  # generated tokens, those of the ending included


class _StopAtMarker(StoppingCriteria):
    """Ends a sequence when the text generated so far contains a marker.

    Own code, because transformers' stop_strings also match text that begins in the prompt, which ends with a
    role marker itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, markers: Sequence[str], prompt_length: int) -> None:
        self.tokenizer = tokenizer
        self.markers = markers
        self.prompt_length = prompt_length
        # A token that contributes text has at least one byte, so a marker that ends in the newest token lies
        # within this many tokens. Looking at no more keeps the cost of a step constant.
        self.tail = max((len(marker.encode()) for marker in markers), default=0)
        self.ended_at: dict[int, int] = {}  # row of the batch -> tokens generated when it met a marker

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        generated = input_ids.shape[1] - self.prompt_length
        tails = input_ids[:, self.prompt_length :][:, -self.tail :].tolist()
        for row, tail in enumerate(tails):
            if row not in self.ended_at and _contains(_decode(self.tokenizer, tail), self.markers):
                self.ended_at[row] = generated
        return torch.tensor([row in self.ended_at for row in range(len(tails))], device=input_ids.device)


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

    The prompts are answered in batches of similar length, longest first, so that memory runs out at the start
    if at all. Nothing but the prompt (and its seed) decides an answer: not the batch, not the sampling settings that a
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
    eos_ids = _eos_ids(model, tokenizer)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(eos_ids), None)
    if pad_id is None:
        raise UserError(
            "The tokenizer has neither a padding nor an end-of-sequence token: set eos_token in its "
            "tokenizer_config.json."
        )
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,  # also where tokens are sampled: see sampling.py
        pad_token_id=pad_id,
        eos_token_id=eos_ids or None,
    )

    order = sorted(range(len(prompt_ids)), key=lambda index: -len(prompt_ids[index]))
    answers: dict[int, Generation] = {}
    own_config, was_training = model.generation_config, model.training
    # generate() fills every unset value from the model's own config, so that one has to be out of the way.
    model.generation_config = config
    model.eval()
    try:
        with tqdm(total=len(order), desc=description, unit="prompt", disable=description is None) as progress:
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                prompts = [prompt_ids[index] for index in batch]
                processors = LogitsProcessorList()
                if sampling is not None:
                    seeds = [sampling.seeds[index] for index in batch]
                    processors = samplers(sampling, seeds, max(map(len, prompts)), max_new_tokens)
                generations = _generate_batch(model, tokenizer, prompts, config, processors, eos_ids, stop_markers)
                answers.update(zip(batch, generations, strict=True))
                progress.update(len(batch))
    finally:
        model.generation_config = own_config
        model.train(was_training)
    return [answers[index] for index in range(len(prompt_ids))]


def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    config: GenerationConfig,
    processors: LogitsProcessorList,
    eos_ids: list[int],
    markers: Sequence[str],
) -> list[Generation]:
    width = max(map(len, prompts))
    input_ids = torch.tensor([[config.pad_token_id] * (width - len(ids)) + ids for ids in prompts])
    # From the lengths, not from the ids: the padding token may also be a real one.
    attention_mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    stop = _StopAtMarker(tokenizer, markers, width)
    generate: Any = model.generate  # its type is lost in the mixins
    output = generate(
        input_ids=input_ids.to(model.device),
        attention_mask=attention_mask.to(model.device),
        generation_config=config,
        logits_processor=processors,
        stopping_criteria=StoppingCriteriaList([stop] if markers else []),
    )
    generations = []
    for row, ids in enumerate(output[:, width:].tolist()):
        end = stop.ended_at.get(row)
        eos_at = next((place + 1 for place, token in enumerate(ids) if token in eos_ids), None)
        ends = [place for place in (end, eos_at) if place is not None]
        length = min(ends, default=len(ids))
        text = _before_marker(_decode(tokenizer, ids[:length]), markers)
        generations.append(Generation(text=text.strip(), finished=bool(ends), tokens=length))
    return generations


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every id that ends an answer: chat models list more in their generation config than the tokenizer knows.

    What ends a turn of the tokenizer's chat template is what a policy was trained to end in, listed or not.
    """
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = [*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id]
    if tokenizer.chat_template is not None:
        ids.append(response_frame(tokenizer, "chat_template")[1])
    return sorted({token for token in ids if token is not None})


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _contains(text: str, markers: Sequence[str]) -> bool:
    return any(marker in text for marker in markers)


def _before_marker(text: str, markers: Sequence[str]) -> str:
    return text[: min((place for marker in markers if (place := text.find(marker)) >= 0), default=len(text))]
