"""Many answers at once, each slot of the batch given to the next prompt as soon as its answer is whole.

transformers has such a loop, `generate_batch`, but it ends answers at end-of-sequence tokens alone, not at a text such
as a role marker, and draws the samples of all prompts from one stream of random numbers.
"""

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from clha_core.evaluation.generation.decoding import Decoding, longest_first, pad_left
from clha_core.evaluation.generation.endings import Generation
from clha_core.evaluation.generation.slots import SlotCache

PREFILL_TOKENS = 2048  # of prompts in one forward pass, more or less: bounds its memory
REFILL_SHARE = 4  # one slot of so many has to be free before prompts are prefilled: few at a time waste a GPU


@dataclass
class _Row:
    """An answer under way; `index` is that of its prompt."""

    index: int
    prompt: list[int]
    generated: list[int] = field(default_factory=list)

    @property
    def cached(self) -> int:
        """Tokens in the cache: all but the newest."""
        return len(self.prompt) + len(self.generated) - 1


class Continuous:
    """Every prompt's number with its answer, as the answers are done, once.

    Args:
        model: one that `has_slots`, in evaluation mode.
        prompts: token ids, of one prompt at least, none of them empty.
        decoding: how they are answered; its batch has a slot for each.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]], decoding: Decoding) -> None:
        self.model = model
        self.decoding = decoding
        order = longest_first(prompts)
        self.waiting = deque(_Row(index, prompts[index]) for index in order)
        self.rows: list[_Row] = []  # those of the cache, in its order
        self.slots = min(decoding.batch_size, len(prompts))
        longest = len(prompts[order[0]])
        self.cache = SlotCache(model.config, self.slots, longest, decoding.max_new_tokens, model.device)
        # Without it, the logits of a whole prompt are computed for the sake of its last token's.
        takes = inspect.signature(model.forward).parameters
        self.options = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    @torch.inference_mode()
    def __iter__(self) -> Iterator[tuple[int, Generation]]:
        while self.waiting or self.rows:
            if self.rows:
                self._choose(self._step(), self.rows)
                yield from self._leave()
            free = self.slots - len(self.rows)
            if self.waiting and free * REFILL_SHARE >= self.slots:
                for group in _groups(self.waiting, free):
                    self._choose(self._prefill(group), group)
                    self.rows += group
                yield from self._leave()

    def _prefill(self, group: list[_Row]) -> Tensor:
        """The logits behind the prompts, whose keys and values go to the cache."""
        input_ids, attention_mask = pad_left([row.prompt for row in group], self.decoding.pad_token_id)
        input_ids, attention_mask = input_ids.to(self.model.device), attention_mask.to(self.model.device)
        prefilled = DynamicCache(config=self.model.config)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=prefilled,
            use_cache=True,
            **self.options,
        )
        self.cache.admit(prefilled, attention_mask)
        return output.logits[:, -1]

    def _step(self) -> Tensor:
        """The logits behind the newest token of every row."""
        rows, cache = self.rows, self.cache
        to_come = len(self.waiting[0].prompt) if self.waiting else 0
        mask = cache.next_column(max(row.cached for row in rows), to_come)
        newest, positions = torch.tensor([(row.generated[-1], row.cached) for row in rows]).to(mask.device).T
        output = self.model(
            input_ids=newest[:, None],
            attention_mask=mask,
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
            **self.options,
        )
        cache.advance()
        return output.logits[:, -1]

    def _choose(self, logits: Tensor, rows: list[_Row]) -> None:
        scores = logits.float()
        if (sampler := self.decoding.sampler) is None:
            tokens = scores.argmax(-1)
        else:
            tokens = sampler.draw(scores, [(row.index, len(row.generated)) for row in rows])
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.generated.append(token)

    def _leave(self) -> Iterator[tuple[int, Generation]]:
        """Rows whose answers are done make room."""
        endings = self.decoding.endings
        for place in reversed(range(len(self.rows))):
            row = self.rows[place]
            finished = endings.reached(row.generated)
            if not finished and len(row.generated) < self.decoding.max_new_tokens:
                continue
            yield row.index, endings.generation(row.generated, finished=finished)
            last = self.rows.pop()
            if place < len(self.rows):
                self.rows[place] = last
            self.cache.release(place)


def _groups(waiting: deque[_Row], free: int) -> Iterator[list[_Row]]:
    """The next prompts, so many as there are free slots, in groups for one forward pass each."""
    while waiting and free:
        fit = max(1, PREFILL_TOKENS // len(waiting[0].prompt))
        group = [waiting.popleft() for _ in range(min(fit, free, len(waiting)))]
        free -= len(group)
        yield group
