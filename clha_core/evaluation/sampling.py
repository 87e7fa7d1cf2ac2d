"""Sampling in which only a prompt and its seed decide an answer, not what else is in the batch.

transformers draws all rows of a batch from one stream of random numbers, so that a row's tokens depend on how many
rows there are. Here each row has its own numbers in [0, 1), one for each token, and a token is where its number falls
in the cumulative distribution (inverse transform sampling): one number a token, whatever the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper


@dataclass(frozen=True)
class Sampling:
    """How to sample; `seeds` has one for each prompt."""

    temperature: float
    top_p: float
    seeds: Sequence[int]


class DrawToken(LogitsProcessor):
    """Leaves each row one token, drawn from the distribution of its scores; greedy decoding then takes it.

    Args:
        seeds: one for each row of the batch.
        prompt_length: tokens in front of the first generated one.
        max_new_tokens: that will be drawn, at most.
    """

    def __init__(self, seeds: Sequence[int], prompt_length: int, max_new_tokens: int) -> None:
        self.prompt_length = prompt_length
        self.numbers = torch.stack(
            [
                torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
                for seed in seeds
            ]
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # In double precision: the small probabilities of a large vocabulary are lost in a sum of floats.
        cumulative = scores.double().softmax(dim=-1).cumsum(dim=-1)
        number = self.numbers[:, input_ids.shape[1] - self.prompt_length, None].to(scores.device)
        token = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True)
        token.clamp_(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def samplers(sampling: Sampling, seeds: Sequence[int], prompt_length: int, max_new_tokens: int) -> LogitsProcessorList:
    """What makes greedy decoding sample one batch, whose rows have `seeds`."""
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*warpers, DrawToken(seeds, prompt_length, max_new_tokens)])
