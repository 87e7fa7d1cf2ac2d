"""Token sequences of different lengths as one block."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_right(sequences: Sequence[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (sequences, longest)."""
    width = max(map(len, sequences))
    input_ids = torch.full((len(sequences), width), pad_token_id)
    attention_mask = torch.zeros((len(sequences), width), dtype=torch.long)
    for row, ids in enumerate(sequences):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
    return input_ids, attention_mask
