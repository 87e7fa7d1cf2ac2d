"""Seconds and bytes of training steps, and whether two contestants compute the same."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaForCausalLM

from benchmarks.batches import Draw, Row, longest_sequence, tokens
from benchmarks.contestant import Contestant


@dataclass(frozen=True)
class StepSeconds:
    """Mean over the batches of each batch's median over the rounds, in seconds."""

    forward_backward: float
    optimizer: float

    @property
    def total(self) -> float:
        """A whole step."""
        return self.forward_backward + self.optimizer


@dataclass(frozen=True)
class Difference:
    """How far a contestant is from another one on one batch, relative to the other one."""

    loss: float
    gradient: float


def batches_of(contestant: Contestant, rows: Draw) -> list[list[Row]]:
    """The batches that a contestant gets of a draw."""
    return rows.grouped if contestant.length_grouped else rows.shuffled


def optimizer_of(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """The same for everybody: fused AdamW."""
    return torch.optim.AdamW(model.parameters(), lr=5e-6, fused=True)


def forward(contestant: Contestant, batch: Any) -> Tensor:
    """The contestant's loss, under bf16 autocast where it wants that."""
    casting: AbstractContextManager[Any] = nullcontext()
    if contestant.autocast:
        casting = torch.autocast(contestant.model.device.type, torch.bfloat16)
    with casting:
        return contestant.loss(batch)


def now(device: torch.device) -> float:
    """Seconds: on a GPU of the clock, once it has done what it was given; on a CPU of this process.

    With one thread the two differ only by what other processes took, which is nobody's merit.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def time_steps(contestants: Sequence[Contestant], rows: Draw, rounds: int) -> dict[str, StepSeconds]:
    """Time steps in turn: every contestant's first batch, every contestant's second one, and so on.

    Machines drift; contestants that take turns drift together. A first step of each is not counted.

    Returns:
        By the contestants' names.
    """
    optimizers = [optimizer_of(contestant.model) for contestant in contestants]
    batches = [[contestant.collate(batch) for batch in batches_of(contestant, rows)] for contestant in contestants]
    count = len(rows.shuffled)
    # [contestant][batch] -> one (forward and backward, optimizer) a round
    seconds: list[list[list[tuple[float, float]]]] = [[[] for _ in range(count)] for _ in contestants]
    for round_number in range(-1, rounds):
        for index in range(count if round_number >= 0 else 1):
            for which, contestant in enumerate(contestants):
                device = contestant.model.device
                start = now(device)
                forward(contestant, batches[which][index]).backward()
                middle = now(device)
                optimizers[which].step()
                optimizers[which].zero_grad(set_to_none=True)
                end = now(device)
                if round_number >= 0:
                    seconds[which][index].append((middle - start, end - middle))
    return {
        contestant.name: StepSeconds(
            *(
                statistics.mean(statistics.median(taken[part] for taken in batch) for batch in seconds[which])
                for part in (0, 1)
            )
        )
        for which, contestant in enumerate(contestants)
    }


def activation_peak(contestant: Contestant, rows: Draw) -> int:
    """Most bytes alive at once in a forward and backward, beyond what was there before.

    Taken over the batches that can have it: the one with the longest row and the one with the most tokens.

    On a CPU: torch.profiler's record of every allocation and release, summed up in the order of time. Parameters,
    gradients and the collated batch are there before, so they do not count; a gradient on its way to be added to the
    parameter's does.
    """
    model = contestant.model
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    batches = batches_of(contestant, rows)
    most_tokens = max(batches, key=lambda batch: sum(map(tokens, batch)))
    longest = max(batches, key=lambda batch: max(map(longest_sequence, batch)))
    peaks = []
    for rows_of_batch in [most_tokens] if longest is most_tokens else [most_tokens, longest]:
        batch = contestant.collate(rows_of_batch)
        peaks.append(cpu_peak(partial(_forward_backward, contestant, batch)))
    model.zero_grad(set_to_none=True)
    return max(peaks)


def cpu_peak(work: Callable[[], object]) -> int:
    """Most bytes alive at once during `work`, beyond what was there before: torch's own allocations on a CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    results = profiler.profiler.kineto_results
    changes = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    alive = peak = 0
    for _, change in changes:
        alive += change
        peak = max(peak, alive)
    return peak


def _forward_backward(contestant: Contestant, batch: Any) -> None:
    forward(contestant, batch).backward()


def difference(contestant: Contestant, other: Contestant, rows: Sequence[Row]) -> Difference:
    """Loss and gradient of a contestant against another one's, on the same rows and from the same weights."""
    theirs, ours = _loss_and_gradient(other, rows), _loss_and_gradient(contestant, rows)
    squared = sum((ours[1][name] - gradient).double().square().sum() for name, gradient in theirs[1].items())
    norm = sum(gradient.double().square().sum() for gradient in theirs[1].values())
    assert isinstance(squared, Tensor)
    assert isinstance(norm, Tensor)
    return Difference(abs(ours[0] - theirs[0]) / max(1.0, abs(theirs[0])), (squared / norm).sqrt().item())


def _loss_and_gradient(contestant: Contestant, rows: Sequence[Row]) -> tuple[float, Mapping[str, Tensor]]:
    loss = forward(contestant, contestant.collate(rows))
    loss.backward()
    gradients = {
        name: parameter.grad.float()
        for name, parameter in contestant.model.named_parameters()
        if parameter.grad is not None
    }
    contestant.model.zero_grad(set_to_none=True)
    return loss.item(), gradients
