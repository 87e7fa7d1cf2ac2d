"""The loss over a whole split, of which every process computes a part, batch by batch."""

import torch
from accelerate import Accelerator
from torch import Tensor

from clha_core.losses import Totals


class SplitLoss:
    """Adds up the loss of one evaluation: a mean of batch means would depend on the batches.

    Where a split does not fill the batches of all processes, accelerate fills them with rows that were there before.
    These do not count.

    Args:
        rows: of the split.
        batch_size: rows of a batch in one process.
        totals: of the split, which the loss of every batch is divided by.
    """

    def __init__(self, accelerator: Accelerator, rows: int, batch_size: int, totals: Totals) -> None:
        self.totals = totals
        self._accelerator = accelerator
        self._rows = rows
        self._batch_size = batch_size
        self._batch = accelerator.process_index  # accelerate gives every process one of so many in turn
        self._parts: list[Tensor] = []

    def next_batch(self) -> int:
        """How many rows of this process' next batch count: the first ones, or none."""
        counted = min(max(0, self._rows - self._batch * self._batch_size), self._batch_size)
        self._batch += self._accelerator.num_processes
        return counted

    def add(self, part: Tensor) -> None:
        """The loss of the rows of a batch that count, over the split's totals."""
        self._parts.append(part.double())

    def value(self) -> float:
        """The loss of all processes; all of them have to call this."""
        return float(self._accelerator.gather(torch.stack(self._parts).sum().reshape(1)).sum())
