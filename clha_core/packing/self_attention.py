"""Self-attention of the standard layers, which asks only for what is read and turns positions in fewer passes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class _Rotary(torch.autograd.Function):
    """x * cos + rotate_half(x) * sin, where rotate_half([a, b]) = [-b, a]; no copy is made of the halves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        turned = x * cos
        (first, second), (sin_first, sin_second) = x.chunk(2, -1), sin.chunk(2, -1)
        into_first, into_second = turned.chunk(2, -1)
        into_first.addcmul_(second, sin_first, value=-1)
        into_second.addcmul_(first, sin_second)
        return turned

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        back = grad * cos
        (first, second), (sin_first, sin_second) = grad.chunk(2, -1), sin.chunk(2, -1)
        into_first, into_second = back.chunk(2, -1)
        into_first.addcmul_(second, sin_second)
        into_second.addcmul_(first, sin_first, value=-1)
        return back.to(ctx.dtype), None, None


def self_attention(attention: Any, kept: Tensor | None = None) -> Callable[..., tuple[Tensor, None]]:
    """The forward of a standard layer's self-attention: (1, T, width) to (1, T, width), and no weights.

    Args:
        kept: (K,) the only rows to attend from, those of `TreePack.kept`; (1, K, width) is returned then.
    """

    def heads(projection: Any, hidden: Tensor, norm: Any) -> Tensor:
        states = projection(hidden).view(*hidden.shape[:-1], -1, attention.head_dim)
        return states if norm is None else norm(states)

    def forward(
        hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], attention_mask: Tensor, **kwargs: Any
    ) -> tuple[Tensor, None]:
        cos, sin = (table.unsqueeze(2) for table in position_embeddings)
        key = heads(attention.k_proj, hidden_states, getattr(attention, "k_norm", None))
        key = _Rotary.apply(key, cos, sin)
        value = heads(attention.v_proj, hidden_states, None)
        if kept is not None:
            hidden_states, cos, sin = (rows.index_select(1, kept) for rows in (hidden_states, cos, sin))
        query = heads(attention.q_proj, hidden_states, getattr(attention, "q_norm", None))
        query = _Rotary.apply(query, cos, sin)
        attend = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
        attended, _ = attend(
            attention,
            *(states.transpose(1, 2) for states in (query, key, value)),
            attention_mask,
            dropout=attention.attention_dropout if attention.training else 0.0,
            scaling=attention.scaling,
            sliding_window=_window(attention),
            only_kept=kept is not None,
            **{name: value for name, value in kwargs.items() if name != "past_key_values"},
        )
        return attention.o_proj(attended.flatten(2)), None

    return forward


def _window(attention: Any) -> int | None:
    """Mistral has one for all layers, in its configuration; Qwen's layers know their own; Llama has none."""
    if hasattr(attention, "sliding_window"):
        own: int | None = attention.sliding_window
        return own
    of_all: int | None = getattr(attention.config, "sliding_window", None)
    return of_all
