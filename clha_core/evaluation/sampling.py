"""Sampling in which only a prompt and its seed decide an answer, not what else is in the batch.

transformers draws all rows of a batch from one stream of random numbers, so that a row's tokens depend on how many
rows there are. Here each prompt has its own numbers in [0, 1), one for each token, and a token is where its number
falls in the cumulative distribution (inverse transform sampling): one number a token, whatever the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper


@dataclass(frozen=True)
class Sampling:
    """How to sample; `seeds` has one for each prompt."""

    temperature: float
    top_p: float
    seeds: Sequence[int]


class Sampler:
    """Draws tokens.

    Args:
        sampling: how.
        max_new_tokens: of an answer, at most.
    """

    def __init__(self, sampling: Sampling, max_new_tokens: int) -> None:
        self.sampling = sampling
        self.max_new_tokens = max_new_tokens
        warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
        if sampling.top_p < 1:
            warpers.append(TopPLogitsWarper(sampling.top_p))
        self._warpers = LogitsProcessorList(warpers)
        self._numbers: dict[int, Tensor] = {}  # of the prompts drawn for so far

    def draw(self, scores: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
        """The next token of each row.

        Args:
            scores: logits, [rows, vocabulary].
            places: number of the prompt, and of the token in its answer, of each row.

        Returns:
            [rows].
        """
        tokens_so_far: Any = torch.empty(len(scores), 0, dtype=torch.long)  # of no interest to these warpers
        scores = self._warpers(tokens_so_far, scores)
        # In double precision: the small probabilities of a large vocabulary are lost in a sum of floats.
        cumulative = scores.double().softmax(dim=-1).cumsum(dim=-1)
        numbers = torch.stack([self._numbers_of(prompt)[token] for prompt, token in places])
        numbers = numbers[:, None].to(scores.device)
        tokens = torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True)
        return tokens[:, 0].clamp(max=scores.shape[1] - 1)

    def _numbers_of(self, prompt: int) -> Tensor:
        if prompt not in self._numbers:
            generator = torch.Generator().manual_seed(self.sampling.seeds[prompt])
            self._numbers[prompt] = torch.rand(self.max_new_tokens, generator=generator, dtype=torch.float64)
        return self._numbers[prompt]
