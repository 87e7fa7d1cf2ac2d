"""What the ways to answer many prompts share: settings, order, and prompts of different lengths as one block."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clha_core.evaluation.generation.endings import Endings
from clha_core.evaluation.sampling import Sampler


@dataclass(frozen=True)
class Decoding:
    """How every prompt is answered.

    Attributes:
        endings: when an answer is whole.
        max_new_tokens: of an answer, at most.
        batch_size: prompts answered at once.
        sampler: None takes the likeliest token every time.
        pad_token_id: any token; it is masked.
    """

    endings: Endings
    max_new_tokens: int
    batch_size: int
    sampler: Sampler | None
    pad_token_id: int


def longest_first(prompts: Sequence[list[int]]) -> list[int]:
    """The numbers of the prompts in the order in which they are answered."""
    return sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))


def pad_left(prompts: Sequence[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (prompts, longest); the mask is made of the lengths, not of the ids, because
    the padding token may also be a real one."""
    width = max(map(len, prompts))
    input_ids = torch.tensor([[pad_token_id] * (width - len(ids)) + ids for ids in prompts])
    attention_mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    return input_ids, attention_mask
