"""Batches for the tests of the losses, and every loss under one signature."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from clha_core import losses
from clha_core.losses import ABSENT, Totals


class Batch(NamedTuple):
    """What the losses read, each (batch, n) and float64."""

    mean_logps: Tensor
    sum_logps: Tensor
    reference_mean_logps: Tensor
    reference_sum_logps: Tensor
    lengths: Tensor
    rewards: Tensor

    def select(self, rows: Tensor) -> "Batch":
        return Batch(*(tensor[rows] for tensor in self))

    def reorder(self, order: Tensor) -> "Batch":
        return Batch(*(tensor.gather(1, order) for tensor in self))


LOGPS = ("mean_logps", "sum_logps")
REFERENCE_LOGPS = ("reference_mean_logps", "reference_sum_logps")

Loss = Callable[[Batch, Totals | None], Tensor]

# Every loss with the settings that batch_totals needs to know of; margin and gap are away from the hinges' kinks.
CLHA = {"margin": 0.731, "reward_gap": 1.0, "sft_weight": 0.05}
LOSSES: dict[str, Loss] = {
    "clha": lambda b, t: losses.clha_loss(b.mean_logps, b.sum_logps, b.rewards, **CLHA, totals=t).total,
    "clha contrastive": lambda b, t: (
        losses.clha_loss(b.mean_logps, b.sum_logps, b.rewards, **CLHA, totals=t).contrastive
    ),
    "clha sft": lambda b, t: losses.clha_loss(b.mean_logps, b.sum_logps, b.rewards, **CLHA, totals=t).sft,
    "clha ungated": lambda b, t: (
        losses.clha_loss(
            b.mean_logps, b.sum_logps, b.rewards, **CLHA, scale_margin=False, gate_sft=False, totals=t
        ).total
    ),
    "clha unmasked": lambda b, t: (
        losses.clha_loss(b.mean_logps, b.sum_logps, b.rewards, **CLHA, reward_mask=False, totals=t).total
    ),
    "pro": lambda b, t: losses.pro_loss(b.mean_logps, b.rewards, totals=t),
    "rrhf": lambda b, t: losses.rrhf_loss(b.mean_logps, b.rewards, totals=t),
    "sft": lambda b, t: losses.sft_loss(b.sum_logps, b.lengths, b.rewards, totals=t),
    "dpo": lambda b, t: losses.dpo_loss(b.sum_logps, b.reference_sum_logps, b.rewards, totals=t),
    "ipo": lambda b, t: losses.ipo_loss(b.mean_logps, b.reference_mean_logps, b.rewards, totals=t),
    "simpo": lambda b, t: losses.simpo_loss(b.mean_logps, b.rewards, totals=t),
    "orpo": lambda b, t: losses.orpo_loss(b.mean_logps, b.sum_logps, b.lengths, b.rewards, totals=t).total,
}


def totals_of(name: str, batch: Batch) -> Totals:
    """batch_totals with the settings of the loss of this name."""
    return losses.batch_totals(
        batch.rewards, batch.lengths, reward_gap=CLHA["reward_gap"], reward_mask=name != "clha unmasked"
    )


def float64(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_batch(seed: int, rows: int, n: int, *, ragged: bool = True) -> Batch:
    """Rows of 2 to n candidates in any slots and any order; slots without one hold 0."""
    generator = torch.Generator().manual_seed(seed)

    def uniform() -> Tensor:
        return torch.rand(rows, n, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, 50, (rows, n), generator=generator)
    rewards = 4 * torch.randn(rows, n, generator=generator, dtype=torch.float64)
    means, reference = -3 * uniform(), -3 * uniform()
    batch = Batch(means, means * lengths, reference, reference * lengths, lengths, rewards)
    if not ragged:
        return batch
    counts = torch.randint(2, n + 1, (rows, 1), generator=generator)
    absent = uniform().argsort(dim=1) >= counts
    blank = {field: tensor.masked_fill(absent, 0) for field, tensor in batch._asdict().items()}
    return Batch(**{**blank, "rewards": rewards.masked_fill(absent, ABSENT)})
