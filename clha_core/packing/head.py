"""Log-probs of target tokens from hidden states, by a softmax over blocks of the vocabulary.

Logits are by far a language model's largest tensor, and autograd would hold three of their size: the logits, their
log-softmax, and its gradient. Here a block of them becomes exp(logit - largest logit of the block) while it is in the
processor's cache, and that is all that is kept: up to a factor for each row and block it is the softmax, so the
backward pass only multiplies matrices. Where even this is too large, it is made again in the backward pass.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Logits that are kept for the backward pass, at most. Above it they are computed twice, a tenth of a step's time.
KEPT_BYTES = 128 * 2**20
# Logits of one block, but at least so many columns: products of fewer are slow.
BLOCK_BYTES = 8 * 2**20
FEWEST_COLUMNS = 2048
# Columns come in multiples of this: a product whose rows do not begin at a cache line's start takes a third longer.
ALIGNMENT = 64


def target_logps(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, columns: int | None = None, kept_bytes: int = KEPT_BYTES
) -> Tensor:
    """log softmax(hidden @ weight.T) at the targets; differentiable once.

    Args:
        hidden: (S, width).
        weight: (vocabulary, width), of the output layer.
        targets: (S,) token ids.
        columns: of the vocabulary in a block; by default as many as `BLOCK_BYTES` hold.
        kept_bytes: logits kept for the backward pass; all of them or none.

    Returns:
        (S,) natural logarithms, in float32 or float64.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    row_bytes = max(1, len(targets)) * hidden.element_size()
    columns = columns or max(FEWEST_COLUMNS, BLOCK_BYTES // row_bytes // ALIGNMENT * ALIGNMENT)
    logps: Tensor = _TargetLogps.apply(hidden, weight, targets, columns, weight.shape[0] * row_bytes <= kept_bytes)
    return logps


def picked_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax at the targets, (S,), of logits (S, vocabulary) that are there already; in float32 or float64."""
    return logits.log_softmax(-1, dtype=_wide(logits)).gather(1, targets.unsqueeze(1)).squeeze(1)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _logits(hidden: Tensor, block: Tensor) -> Tensor:
    logits = hidden @ block.t()
    return logits.to(_wide(logits))


class _TargetLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, columns: int, keep: bool) -> Tensor:
        picked = hidden.new_zeros(len(targets), dtype=_wide(hidden))
        exponentials, peaks, sums = [], [], []
        for start, block in _blocks(weight, columns):
            logits = _logits(hidden, block)
            at = targets - start
            inside = (at >= 0) & (at < len(block))
            picked = torch.where(inside, logits.gather(1, at.clamp(0, len(block) - 1).unsqueeze(1)).squeeze(1), picked)
            peaks.append(logits.amax(1, keepdim=True))
            exponential = logits.sub_(peaks[-1]).exp_()
            sums.append(exponential.sum(1, keepdim=True))
            if keep and any(ctx.needs_input_grad):
                exponentials.append(exponential.to(hidden.dtype))
        peak = torch.cat(peaks, 1)
        normaliser = torch.logsumexp(peak + torch.cat(sums, 1).log(), 1, keepdim=True)
        ctx.save_for_backward(hidden, weight, targets, normaliser, peak, *exponentials)
        ctx.columns = columns
        return picked - normaliser.squeeze(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, targets, normaliser, peak, *exponentials = ctx.saved_tensors
        trains_hidden, trains_weight, *_ = ctx.needs_input_grad
        grad = grad.unsqueeze(1)
        # d logp(target) / d logits = 1 at the target - softmax.
        grad_hidden = grad * weight[targets] if trains_hidden else None
        grad_weight = torch.empty_like(weight) if trains_weight else None
        factors = (peak - normaliser).exp_().mul_(-grad)
        for number, (start, block) in enumerate(_blocks(weight, ctx.columns)):
            factor = factors[:, number : number + 1]
            if exponentials:
                exponential = exponentials[number]
            else:
                exponential = _logits(hidden, block).sub_(peak[:, number : number + 1]).exp_().to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden.addcmul_(factor, exponential @ block)
            if grad_weight is not None:
                rows = (hidden * factor).to(hidden.dtype)
                torch.mm(exponential.t(), rows, out=grad_weight[start : start + len(block)])
        if grad_weight is not None:
            grad_weight.index_put_((targets,), (grad * hidden).to(weight.dtype), accumulate=True)
        return None if grad_hidden is None else grad_hidden.to(hidden.dtype), grad_weight, None, None, None


def _blocks(weight: Tensor, columns: int) -> Iterator[tuple[int, Tensor]]:
    """Each block of the vocabulary: its first token and its rows of the weight."""
    for number, block in enumerate(weight.split(columns)):
        yield number * columns, block
