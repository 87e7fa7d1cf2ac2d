"""Attention over packed trees, registered with transformers under the name `clha_tree`.

Each tree is two calls of scaled dot-product attention: its prompt on itself, causally, and all its responses on the
whole tree, through the tree's mask. Trees do not see each other, and nothing of the size of the pack's square exists.
Called without trees (generation, say), it is transformers' own `sdpa`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from clha_core.packing.trees import Segment

TREE_ATTENTION = "clha_tree"
# What some models hand to their attention and scaled dot-product attention does not know.
UNKNOWN_TO_SDPA = ("softcap", "s_aux", "position_bias")


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    trees: tuple[Sequence[Segment], Sequence[Tensor]] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of packed trees.

    Args:
        query: (1, heads, T, head size).
        key, value: (1, key-value heads, T, head size).
        trees: segments and masks of a `TreePack`; None for ordinary batches.

    Returns:
        (1, T, heads, head size), and no weights.
    """
    if trees is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if unknown := [name for name in UNKNOWN_TO_SDPA if kwargs.get(name) is not None]:
        raise ValueError(f"tree packing does not know this model's {', '.join(unknown)}")
    segments, masks = trees
    longest = max(segment.prompt + segment.responses for segment in segments)
    if (window := kwargs.get("sliding_window")) is not None and window < longest:
        raise ValueError(f"tree packing does not know windows: this one is of {window} tokens, a tree of {longest}")
    common: dict[str, Any] = {"scale": scaling, "dropout_p": dropout, "enable_gqa": query.shape[1] != key.shape[1]}
    # split() rather than slices of the whole: its gradient is one concatenation, a slice's is a pack of zeros.
    parts = query.split([size for segment in segments for size in (segment.prompt, segment.responses)], dim=2)
    sizes = [segment.prompt + segment.responses for segment in segments]
    outputs = []
    for tree, (keys, values) in enumerate(zip(key.split(sizes, dim=2), value.split(sizes, dim=2), strict=True)):
        prompt, responses = parts[2 * tree : 2 * tree + 2]
        shared = segments[tree].prompt
        own = keys[:, :, :shared], values[:, :, :shared]
        outputs.append(F.scaled_dot_product_attention(prompt, *own, is_causal=True, **common))
        if segments[tree].responses:
            mask = masks[tree].to(query.dtype)
            outputs.append(F.scaled_dot_product_attention(responses, keys, values, attn_mask=mask, **common))
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1), None


AttentionInterface.register(TREE_ATTENTION, tree_attention)
# Ordinary batches (generation, evaluation of a padded batch) get the mask that `sdpa` gets.
AttentionMaskInterface.register(TREE_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
