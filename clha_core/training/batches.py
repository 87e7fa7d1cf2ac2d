"""Tokenized rows as micro-batches: candidates in a pack, and what the loss needs to know of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clha_core.losses import ABSENT, Totals, batch_totals
from clha_core.packing.trees import Tree, TreePack, pack_trees


@dataclass(frozen=True)
class Row:
    """One tokenized row.

    Attributes:
        id: of the row in its data.
        prompts: token ids of its distinct prompts; one, but for augmented candidates of other prompts.
        responses: token ids of each candidate.
        prompt_of: which of `prompts` each candidate follows.
        rewards: of each candidate.
        reference: log-prob of each candidate under the reference model, summed; empty where the method needs none.
    """

    id: str
    prompts: list[list[int]]
    responses: list[list[int]]
    prompt_of: list[int]
    rewards: list[float]
    reference: list[float]

    @property
    def trees(self) -> list[Tree]:
        """Candidates behind their prompts: one tree where they share it."""
        return [
            Tree(prompt, [self.responses[slot] for slot in self.slots_of(at)]) for at, prompt in enumerate(self.prompts)
        ]

    def slots_of(self, prompt: int) -> list[int]:
        """The candidates of a prompt."""
        return [slot for slot, at in enumerate(self.prompt_of) if at == prompt]

    @property
    def sequence_tokens(self) -> int:
        """Tokens of all candidates as sequences of their own: what is trained on, however it is computed."""
        return sum(tree.sequence_tokens for tree in self.trees)


@dataclass(frozen=True)
class RowBatch:
    """Rows on their way through the dataloader, as one object: nothing looks into it, copies it or moves it."""

    rows: list[Row]


@dataclass(frozen=True)
class MicroBatch:
    """Rows in one forward pass, with b rows of at most n candidates.

    Attributes:
        rows: the rows.
        trees, pack: all their candidates.
        slots: (C,) for each response of the pack, its place in the flattened (b, n).
        rewards: (b, n), ABSENT where a row has fewer candidates.
        lengths: (b, n) scored tokens, 1 where there is no candidate.
        reference_sums: (b, n), or None.
    """

    rows: list[Row]
    trees: list[Tree]
    pack: TreePack
    slots: Tensor
    rewards: Tensor
    lengths: Tensor
    reference_sums: Tensor | None

    def dense(self, values: Tensor) -> Tensor:
        """(C,) values of the pack's responses as (b, n), 0 where there is no candidate."""
        flat = values.new_zeros(self.rewards.numel()).index_put((self.slots,), values)
        return flat.view(self.rewards.shape)


@dataclass(frozen=True)
class PreferenceCollator:
    """Rows of the tokenized dataset as the Trainer's batch.

    `rewards` and `lengths` are (batch, n), filled up like those of a `MicroBatch`; n is the same for every batch.
    """

    candidates: int

    def __call__(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Tensor | RowBatch]:
        made = [Row(**row) for row in rows]
        return {
            "rewards": reward_table(made, self.candidates),
            "lengths": length_table(made, self.candidates),
            "rows": RowBatch(made),
        }


def reward_table(rows: Sequence[Row], candidates: int) -> Tensor:
    """(rows, candidates), float32."""
    return torch.tensor([row.rewards + [ABSENT] * (candidates - len(row.rewards)) for row in rows])


def length_table(rows: Sequence[Row], candidates: int) -> Tensor:
    """(rows, candidates), response tokens."""
    return torch.tensor([[*map(len, row.responses)] + [1] * (candidates - len(row.responses)) for row in rows])


def micro_batch(rows: list[Row], candidates: int, device: torch.device) -> MicroBatch:
    """Lay rows out for one forward pass."""
    slots = [
        index * candidates + slot
        for index, row in enumerate(rows)
        for at in range(len(row.prompts))
        for slot in row.slots_of(at)
    ]
    reference = None
    if rows[0].reference:
        filled = [row.reference + [0.0] * (candidates - len(row.reference)) for row in rows]
        reference = torch.tensor(filled, device=device)
    trees = [tree for row in rows for tree in row.trees]
    return MicroBatch(
        rows=rows,
        trees=trees,
        pack=pack_trees(trees).to(device),
        slots=torch.tensor(slots, device=device),
        rewards=reward_table(rows, candidates).to(device),
        lengths=length_table(rows, candidates).to(device),
        reference_sums=reference,
    )


def add_totals(parts: Sequence[Totals]) -> Totals:
    """The totals of several micro-batches."""
    return Totals(*(torch.stack(field).sum(0) for field in zip(*parts, strict=True)))


def totals_of(batch: Mapping[str, Any], *, reward_gap: float, reward_mask: bool) -> Totals:
    """The counts of one of the Trainer's batches."""
    return batch_totals(batch["rewards"], batch["lengths"], reward_gap=reward_gap, reward_mask=reward_mask)
