"""Attention over packed trees, registered with transformers under the name `clha_tree`.

Each tree is two calls of scaled dot-product attention: its prompt on itself, causally, and all its responses on the
whole tree, through the tree's mask. The last layer of a standard model asks only for the rows that are read, in one
call. Trees do not see each other, and nothing of the size of the pack's square exists.
Called without trees (generation, say), it is transformers' own `sdpa`.
"""

import functools
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
    only_kept: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of packed trees.

    Args:
        query: (1, heads, T, head size), or (1, heads, K, head size) with `only_kept`.
        key, value: (1, key-value heads, T, head size).
        trees: segments and masks of a `TreePack`; None for ordinary batches.
        only_kept: the queries are those of `TreePack.kept`.

    Returns:
        (1, T or K, heads, head size), and no weights.
    """
    if trees is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if unknown := [name for name in UNKNOWN_TO_SDPA if kwargs.get(name) is not None]:
        raise ValueError(f"tree packing does not know this model's {', '.join(unknown)}")
    segments, masks = trees
    sizes = [segment.prompt + segment.responses for segment in segments]
    longest = max(sizes)
    if (window := kwargs.get("sliding_window")) is not None and window < longest:
        raise ValueError(f"tree packing does not know windows: this one is of {window} tokens, a tree of {longest}")
    low, precision = value.dtype, _precision(value)
    query, key, value = query.to(precision), key.to(precision), value.to(precision)
    common: dict[str, Any] = {"scale": scaling, "dropout_p": dropout, "enable_gqa": query.shape[1] != key.shape[1]}
    # split() rather than slices of the whole: its gradient is one concatenation, a slice's is a pack of zeros.
    parts = query.split([rows for segment in segments for rows in _queries(segment, only_kept)], dim=2)
    by_tree = zip(segments, masks, key.split(sizes, dim=2), value.split(sizes, dim=2), strict=True)
    outputs = []
    with torch.autocast(query.device.type, enabled=False):  # it would undo the choice of precision
        for tree, (segment, mask, keys, values) in enumerate(by_tree):
            first, responses = parts[2 * tree : 2 * tree + 2]
            if not only_kept:
                own = keys[:, :, : segment.prompt], values[:, :, : segment.prompt]
                outputs.append(F.scaled_dot_product_attention(first, *own, is_causal=True, **common))
                mask = mask[1:]
            if len(mask):
                outputs.append(
                    F.scaled_dot_product_attention(responses, keys, values, attn_mask=mask.to(precision), **common)
                )
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1).to(low), None


def _queries(segment: Segment, only_kept: bool) -> tuple[int, int]:
    """Rows of a tree that attend without a mask, and rows that attend through it."""
    return (0, segment.responses + 1) if only_kept else (segment.prompt, segment.responses)


def _precision(value: Tensor) -> torch.dtype:
    """What attention is computed in: the values' own precision, but for bfloat16 on most processors.

    torch's backward kernel for processors takes twice as long in bfloat16 as in float32, measured without matrix units.
    """
    slow = value.device.type == "cpu" and value.dtype == torch.bfloat16 and not _has_matrix_units()
    return torch.float32 if slow else value.dtype


@functools.cache
def _has_matrix_units() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


AttentionInterface.register(TREE_ATTENTION, tree_attention)
# Ordinary batches (generation, evaluation of a padded batch) get the mask that `sdpa` gets.
AttentionMaskInterface.register(TREE_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
