"""A last decoder layer that computes only what is read.

The last hidden states of most prompt tokens are read by nobody: no layer follows, and only the last prompt token
predicts something. The last layer needs keys and values of all rows, but queries, the feed-forward half and the final
norm only of the rows that are read: half of them at HH's lengths.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from clha_core.packing.redirect import redirected
from clha_core.packing.self_attention import self_attention

# Architectures (config.model_type) whose decoder layer is x + attention(norm(x)), then x + feed_forward(norm(x)).
STANDARD = {"llama", "mistral", "qwen2", "qwen3"}


def last_layer(body: Any) -> nn.Module | None:
    """The last decoder layer of a model of transformers that has the standard layers, else None."""
    return body.layers[-1] if body.config.model_type in STANDARD else None


def trimmed(layer: Any, kept: Tensor) -> Callable[..., Tensor]:
    """The layer's forward for the rows `kept` (K,): (1, T, width) to (1, K, width)."""
    attention = self_attention(layer.self_attn, kept)

    def forward(hidden_states: Tensor, **kwargs: Any) -> Tensor:
        with redirected(layer.self_attn, attention):
            attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
        rows = hidden_states.index_select(1, kept) + attended
        return rows + layer.mlp(layer.post_attention_layernorm(rows))

    return forward
