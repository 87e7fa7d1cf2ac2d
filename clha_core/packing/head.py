"""Log-probs of target tokens from hidden states, with one block of logits in memory at a time.

Logits are by far a language model's largest tensor, and autograd would hold three of their size: the logits, their
log-softmax, and its gradient. Here one buffer is all three in turn. Where even that one is too large, it is made block
by block, and made again in the backward pass.
"""

from typing import Any

import torch
from torch import Tensor

# Logits of one block, at most. Above it they are computed twice, which costs about a tenth of a step's time.
BLOCK_BYTES = 128 * 2**20


def target_logps(hidden: Tensor, weight: Tensor, targets: Tensor, *, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """log softmax(hidden @ weight.T) at the targets; differentiable once.

    Args:
        hidden: (S, width).
        weight: (vocabulary, width), of the output layer.
        targets: (S,) token ids.
        block_bytes: logits held at once, at most (but one row of them at least).

    Returns:
        (S,) natural logarithms, in float32 or float64.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    rows = max(1, block_bytes // (weight.shape[0] * weight.element_size()))
    logps: Tensor = _TargetLogps.apply(hidden, weight, targets, rows)
    return logps


def picked_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax at the targets, (S,), of logits (S, vocabulary) that are there already; in float32 or float64."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.log_softmax(-1, dtype=wide).gather(1, targets.unsqueeze(1)).squeeze(1)


def _log_softmax(hidden: Tensor, weight: Tensor) -> Tensor:
    """(rows, vocabulary), in the memory of the logits."""
    logits = hidden @ weight.t()
    if logits.dtype in (torch.float32, torch.float64):
        return torch.log_softmax(logits, -1, out=logits)
    return torch.log_softmax(logits, -1, dtype=torch.float32)


class _TargetLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        blocks = list(zip(hidden.split(rows), targets.split(rows), strict=True))
        picked = []
        for block, wanted in blocks:
            logps = _log_softmax(block, weight)
            picked.append(logps.gather(1, wanted.unsqueeze(1)).squeeze(1))
        ctx.save_for_backward(hidden, weight, targets)
        ctx.rows = rows
        # No output and no saved tensor of autograd, so that backward() may overwrite it.
        ctx.logps = logps if len(blocks) == 1 and any(ctx.needs_input_grad) else None
        return torch.cat(picked)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, targets = ctx.saved_tensors
        trains_hidden, trains_weight, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if trains_hidden else None
        grad_weight = torch.zeros_like(weight) if trains_weight else None
        for start in range(0, len(targets), ctx.rows):
            part = slice(start, start + ctx.rows)
            logps = _log_softmax(hidden[part], weight) if ctx.logps is None else ctx.logps
            ctx.logps = None
            # d logp(target) / d logits = 1 at the target - softmax.
            grad_logits = logps.exp_().mul_(-grad[part, None])
            grad_logits.scatter_add_(1, targets[part, None], grad[part, None].to(grad_logits.dtype))
            grad_logits = grad_logits.to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight.addmm_(grad_logits.t(), hidden[part])
        return grad_hidden, grad_weight, None, None
