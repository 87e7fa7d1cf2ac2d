"""Many answers by transformers' own `generate`, batch by batch.

For models whose layers do not keep keys and values of all tokens, but a window of them or a recurrent state: a slot of
such a state cannot be given to another prompt."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from clha_core.evaluation.generation.decoding import Decoding, longest_first, pad_left
from clha_core.evaluation.generation.endings import Endings, Generation
from clha_core.evaluation.sampling import Sampler


class _Stop(StoppingCriteria):
    """Ends a row when its answer is whole, and remembers after how many tokens."""

    def __init__(self, endings: Endings, prompt_length: int) -> None:
        self.endings = endings
        self.prompt_length = prompt_length
        self.ended_at: dict[int, int] = {}  # row of the batch -> generated tokens

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        for row, generated in enumerate(input_ids[:, self.prompt_length :].tolist()):
            if row not in self.ended_at and self.endings.reached(generated):
                self.ended_at[row] = len(generated)
        return torch.tensor([row in self.ended_at for row in range(len(input_ids))], device=input_ids.device)


class _Draw(LogitsProcessor):
    """Leaves each row the token that is drawn; greedy decoding then takes it."""

    def __init__(self, sampler: Sampler, prompts: Sequence[int], prompt_length: int) -> None:
        self.sampler = sampler
        self.prompts = prompts
        self.prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        generated = input_ids.shape[1] - self.prompt_length
        tokens = self.sampler.draw(scores, [(prompt, generated) for prompt in self.prompts])
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


def whole_batches(
    model: PreTrainedModel, prompts: Sequence[list[int]], decoding: Decoding
) -> Iterator[tuple[int, Generation]]:
    """Every prompt's number with its answer, in batches of similar length; takes what `Continuous` takes."""
    order, sampler, endings = longest_first(prompts), decoding.sampler, decoding.endings
    # do_sample stays off also where tokens are drawn: see _Draw.
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens, do_sample=False, pad_token_id=decoding.pad_token_id
    )
    own_config = model.generation_config
    # generate() fills every unset value from the model's own config, so that one has to be out of the way.
    model.generation_config = config
    try:
        for start in range(0, len(order), decoding.batch_size):
            batch = order[start : start + decoding.batch_size]
            input_ids, attention_mask = pad_left([prompts[index] for index in batch], decoding.pad_token_id)
            width = input_ids.shape[1]
            stop = _Stop(endings, width)
            generate: Any = model.generate  # its type is lost in the mixins
            output = generate(
                input_ids=input_ids.to(model.device),
                attention_mask=attention_mask.to(model.device),
                generation_config=config,
                logits_processor=LogitsProcessorList([_Draw(sampler, batch, width)] if sampler else []),
                stopping_criteria=StoppingCriteriaList([stop]),
            )
            for row, (index, ids) in enumerate(zip(batch, output[:, width:].tolist(), strict=True)):
                end = stop.ended_at.get(row)
                yield index, endings.generation(ids[:end], finished=end is not None)
    finally:
        model.generation_config = own_config
