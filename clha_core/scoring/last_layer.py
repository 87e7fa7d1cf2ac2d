"""A last decoder layer that computes only the rows that a score is read from.

No layer follows, so of all other tokens only keys and values are needed. `clha_core.packing.last_layer` is the same for
training, where half of the rows are read and not one a candidate.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.llama.modeling_llama import rotate_half

from clha_core.packing.last_layer import STANDARD
from clha_core.scoring.score_trees import ScorePack

GPT_NEOX = {"gpt_neox", "gpt_neox_reward_model"}


def last_layer_forward(body: Any, pack: ScorePack) -> Callable[..., Tensor] | None:
    """A forward of the last decoder layer, (1, T, width) to (1, C, width); None for architectures not known here."""
    if body.config.model_type in STANDARD:
        return _standard(body.layers[-1], pack)
    if body.config.model_type in GPT_NEOX:
        return _gpt_neox(body.layers[-1], pack)
    return None


def _standard(layer: Any, pack: ScorePack) -> Callable[..., Tensor]:
    attention = layer.self_attn

    def heads(projected: Tensor) -> Tensor:
        return projected.view(1, projected.shape[1], -1, attention.head_dim)

    def forward(hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: Any) -> Tensor:
        normed = layer.input_layernorm(hidden_states)
        query, key = heads(attention.q_proj(normed[:, pack.ends])), heads(attention.k_proj(normed))
        if hasattr(attention, "q_norm"):  # Qwen3
            query, key = attention.q_norm(query), attention.k_norm(key)
        cosine, sine = position_embeddings
        query = _rotated(query.transpose(1, 2), cosine[:, pack.ends], sine[:, pack.ends])
        key = _rotated(key.transpose(1, 2), cosine, sine)
        value = heads(attention.v_proj(normed)).transpose(1, 2)
        attended = _attend(query, key, value, pack, attention.scaling)
        rows = hidden_states[:, pack.ends] + attention.o_proj(attended)
        return rows + layer.mlp(layer.post_attention_layernorm(rows))

    return forward


def _rotated(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    return states * cosine.unsqueeze(1) + rotate_half(states) * sine.unsqueeze(1)


def _attend(query: Tensor, key: Tensor, value: Tensor, pack: ScorePack, scaling: float) -> Tensor:
    """Queries of the last tokens, (1, heads, C, head size), on their own trees: (1, C, width)."""
    sizes = [segment.prompt + segment.responses for segment in pack.segments]
    grouped = query.shape[1] != key.shape[1]
    outputs = []
    tree_end = candidate = 0
    parts = zip(key.split(sizes, 2), value.split(sizes, 2), query.split(list(pack.candidates), 2), strict=True)
    for tree, (keys, values, queries) in enumerate(parts):
        tree_end += sizes[tree]
        ends = pack.ends[candidate : candidate + pack.candidates[tree]] - tree_end  # rows counted from the mask's end
        mask = pack.masks[tree][ends].to(query.dtype)
        outputs.append(
            F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scaling, enable_gqa=grouped)
        )
        candidate += pack.candidates[tree]
    return torch.cat(outputs, dim=2).transpose(1, 2).flatten(2)


def _gpt_neox(layer: Any, pack: ScorePack) -> Callable[..., Tensor]:
    def forward(hidden_states: Tensor, **kwargs: Any) -> Tensor:
        attended, _ = layer.attention(layer.input_layernorm(hidden_states), **kwargs)
        rows = hidden_states[:, pack.ends]
        attended = attended[:, pack.ends]
        parallel = rows if layer.use_parallel_residual else rows + attended
        return rows + attended + layer.mlp(layer.post_attention_layernorm(parallel))

    return forward
