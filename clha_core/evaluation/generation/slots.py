"""Keys and values of answers that are under way, from which finished answers go and to which new ones come."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class _Layer(DynamicLayer):
    """One layer's keys and values, [slots, heads, columns, width]; written in place, where transformers would copy all
    of them for each token."""

    def __init__(self, slots: "SlotCache") -> None:
        super().__init__()
        self.slots = slots

    def admit(self, keys: Tensor, values: Tensor) -> None:
        """Put prefilled rows behind those that are there."""
        slots = self.slots
        if not self.is_initialized:
            # Zeros, because a weight of zero times what is in fresh memory may be nan.
            self.keys, self.values = (
                part.new_zeros(slots.count, part.shape[1], slots.columns, part.shape[3]) for part in (keys, values)
            )
            self.is_initialized = True
        rows = slice(slots.rows, slots.rows + len(keys))
        columns = slice(slots.end - keys.shape[2], slots.end)
        for own, new in zip(self.stored(), (keys, values), strict=True):
            own[rows, :, columns] = new

    def stored(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        slots = self.slots
        keys, values = self.stored()
        keys[: slots.rows, :, slots.end] = key_states[:, :, 0]
        values[: slots.rows, :, slots.end] = value_states[:, :, 0]
        columns = slice(slots.start, slots.end + 1)
        return keys[: slots.rows, :, columns], values[: slots.rows, :, columns]

    def get_seq_length(self) -> int:
        return self.slots.end - self.slots.start


class SlotCache(Cache):
    """A cache of so many rows, of which the first `rows` are in use.

    All rows end in the same column, `end`, because all get their next token at once; each begins where its prompt
    does, and `mask` hides what is left of that. Prompts have to come in descending order of length: then a new one
    always fits between the first column and `end`.

    Args:
        config: of a model that `has_slots`.
        count: slots.
        longest: tokens of the longest prompt, which is the first.
        max_new_tokens: of an answer.
        device: of the model.
    """

    def __init__(
        self, config: PreTrainedConfig, count: int, longest: int, max_new_tokens: int, device: torch.device
    ) -> None:
        self._layers = [_Layer(self) for _ in DynamicCache(config=config).layers]
        super().__init__(layers=[*self._layers])
        self.count = count
        # An answer under way is at most longest + max_new_tokens long: columns are moved every max_new_tokens at most.
        self.columns = longest + 2 * max_new_tokens
        self.rows = self.start = 0
        self.end = longest
        self.mask = torch.zeros(count, self.columns, dtype=torch.bool, device=device)

    def admit(self, prefilled: DynamicCache, attention_mask: Tensor) -> None:
        """Put prefilled rows into the next slots; `attention_mask` [rows, tokens] is that of their prompts."""
        for own, new in zip(self._layers, prefilled.layers, strict=True):
            assert isinstance(new, DynamicLayer)
            assert new.keys is not None
            assert new.values is not None
            own.admit(new.keys, new.values)
        added, tokens = attention_mask.shape
        rows = slice(self.rows, self.rows + added)
        self.mask[rows] = False
        self.mask[rows, self.end - tokens : self.end] = attention_mask.bool()
        self.rows += added

    def release(self, row: int) -> None:
        """Empty a slot; the last row moves there."""
        self.rows -= 1
        if row < self.rows:
            for buffer in self._buffers():
                buffer[row] = buffer[self.rows]

    def next_column(self, longest_row: int, longest_prompt: int) -> Tensor:
        """Make a column for each row's next token; the mask [rows, columns] to attend to it and to what is before.

        Args:
            longest_row: tokens in the cache of the longest row, the next one not included.
            longest_prompt: tokens of the longest prompt that is still to come.
        """
        if self.end == self.columns:
            kept = max(longest_row, longest_prompt)
            for buffer in self._buffers():
                part = buffer[: self.rows]
                part[..., :kept, :] = part[..., self.end - kept : self.end, :].clone()
            self.end = kept
        self.start = self.end - longest_row
        self.mask[: self.rows, self.end] = True
        return self.mask[: self.rows, self.start : self.end + 1]

    def advance(self) -> None:
        """The next tokens are in."""
        self.end += 1

    def _buffers(self) -> list[Tensor]:
        """Each with slots first and columns last but one."""
        return [*(part for layer in self._layers for part in layer.stored()), self.mask[..., None]]


def has_slots(config: PreTrainedConfig) -> bool:
    """Whether the state of a model's layers is keys and values of all tokens, and nothing else (no window, no
    recurrent state)."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
