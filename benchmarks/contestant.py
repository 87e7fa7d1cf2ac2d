"""What every contestant offers: its collation, its loss, a model of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.batches import Row


@dataclass(frozen=True)
class Contestant:
    """One way to do a training step.

    Attributes:
        name: as in the tables.
        model: the model that it trains, shared with nobody.
        collate: rows to whatever `loss` takes; not timed, a data loader does it beside the training.
        loss: the forward pass, timed; a scalar to call backward() on.
        length_grouped: it gets batches of rows of similar length.
        autocast: its forward runs under bf16 autocast.
    """

    name: str
    model: LlamaForCausalLM
    collate: Callable[[Sequence[Row]], Any]
    loss: Callable[[Any], Tensor]
    length_grouped: bool = False
    autocast: bool = False
