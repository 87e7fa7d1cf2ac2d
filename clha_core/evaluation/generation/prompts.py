"""Prompts of different lengths as one block."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_left(prompts: Sequence[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (prompts, longest); the mask is made of the lengths, not of the ids, because
    the padding token may also be a real one."""
    width = max(map(len, prompts))
    input_ids = torch.tensor([[pad_token_id] * (width - len(ids)) + ids for ids in prompts])
    attention_mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    return input_ids, attention_mask
