"""Standard layers that keep less for their backward pass: the same numbers from a third less memory.

Autograd keeps copies that cost little to make again: the normalised input of a norm beside the input itself, and
silu(gate) and silu(gate) * up beside gate and up. Here they are made again in the backward pass, element by element; no
matrix is multiplied twice.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clha_core.packing.redirect import redirected
from clha_core.packing.self_attention import self_attention


class _SwiGLU(torch.autograd.Function):
    """(silu(gate) * up) @ weight.T, of which only gate and up are kept."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return F.linear(F.silu(gate).mul_(up), weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        gate, up, weight = ctx.saved_tensors
        activated = F.silu(gate)
        grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_weight = grad.flatten(0, -2).t() @ (activated * up).flatten(0, -2)
        grad_product = grad @ weight
        grad_up = activated.mul_(grad_product)
        grad_gate = torch.ops.aten.silu_backward(grad_product.mul_(up), gate)
        return grad_gate, grad_up, grad_weight


class _RMSNorm(torch.autograd.Function):
    """weight * x / rms(x), of which only x and 1 / rms(x) are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = _at_least_float32(x)
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        normalised = _at_least_float32(x) * scale
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad * normalised).flatten(0, -2).sum(0).to(weight.dtype)
        grad_normalised = _at_least_float32(grad * weight)
        along = (grad_normalised * normalised).mean(-1, keepdim=True)
        return grad_normalised.sub_(normalised.mul_(along)).mul_(scale).to(x.dtype), grad_weight, None


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@contextmanager
def lean_layers(body: Any) -> Iterator[None]:
    """Inside the block, the norms and feed-forward parts of a standard model's layers keep less.

    Not while layers are checkpointed: their second forward pass runs outside of the block, and has to keep the same.
    """
    with ExitStack() as stack:
        if not any(getattr(layer, "gradient_checkpointing", False) for layer in body.layers):
            for layer in body.layers:
                stack.enter_context(redirected(layer.self_attn, self_attention(layer.self_attn)))
                for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                    stack.enter_context(redirected(norm, _norm(norm)))
                if _is_plain(layer.mlp):
                    stack.enter_context(redirected(layer.mlp, _feed_forward(layer.mlp, stack)))
        yield


def _is_plain(mlp: Any) -> bool:
    down = mlp.down_proj
    activation = getattr(mlp.act_fn, "__class__", None)
    return type(down) is nn.Linear and down.bias is None and activation is not None and "SiLU" in activation.__name__


def _norm(norm: Any) -> Any:
    return lambda x: _RMSNorm.apply(x, norm.weight, norm.variance_epsilon)


def _feed_forward(mlp: Any, stack: ExitStack) -> Any:
    down = mlp.down_proj

    def project(gate: Tensor, up: Tensor) -> Tensor:
        weight = down.weight
        if torch.is_autocast_enabled(gate.device.type):
            weight = weight.to(torch.get_autocast_dtype(gate.device.type))
        result: Tensor = _SwiGLU.apply(gate, up, weight)
        return result

    # Through the layer's own call: FSDP and ZeRO gather its weight there.
    stack.enter_context(redirected(down, project))
    return lambda x: down(mlp.gate_proj(x), mlp.up_proj(x))
