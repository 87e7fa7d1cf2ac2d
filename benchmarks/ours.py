"""Our own step: the packing engine of `clha_core.packing` under CLHA's loss, packing included.

Beside the engine's own attention there is one over `flex_attention`, for GPUs: it was never timed on one, so the engine
keeps scaled dot-product attention until `gpu_train.py` says which is faster.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, LlamaForCausalLM

from benchmarks.batches import Row
from benchmarks.contestant import Contestant
from clha_core import clha_loss
from clha_core.packing.attention import TREE_ATTENTION
from clha_core.packing.forward import sums, token_logps
from clha_core.packing.trees import Segment, Tree, TreePack, pack_trees

Attention = Literal["sdpa", "flex"]
FLEX = "benchmark_tree_flex"

_compiled_flex = torch.compile(flex_attention, dynamic=True)
# The masks of the pack that is being computed, made once for all layers: (pack's segments, mask of all its rows and of
# those that are read).
_current: dict[int, tuple[BlockMask, BlockMask]] = {}


def flex_tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    trees: tuple[Sequence[Segment], Sequence[Tensor]],
    only_kept: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """One call of flex_attention for the whole pack; it has no backward on a CPU."""
    attend = _compiled_flex if query.is_cuda else flex_attention
    grouped = query.shape[1] != key.shape[1]
    mask = _current[id(trees[0])][only_kept]
    out = attend(query, key, value, block_mask=mask, scale=scaling, enable_gqa=grouped)
    assert isinstance(out, Tensor)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(FLEX, flex_tree_attention)


def block_masks(rows: Sequence[Row], kept: Tensor) -> tuple[BlockMask, BlockMask]:
    """What every token of a pack of `rows` may attend to: its own tree's prompt and its own response, causally.

    Returns:
        The mask of all tokens, and the mask of the tokens `kept` alone.
    """
    samples: list[int] = []
    owners: list[int] = []  # which response a token belongs to; -1 for the prompt
    for sample, row in enumerate(rows):
        own = [-1] * len(row.prompt_ids)
        for candidate, response in enumerate(row.response_ids):
            own += [candidate] * (len(response) - 1)
        samples += [sample] * len(own)
        owners += own
    device = kept.device
    sample_of, owner = torch.tensor(samples, device=device), torch.tensor(owners, device=device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        related = (owner[key] == -1) | (owner[key] == owner[query])
        return (sample_of[key] == sample_of[query]) & related & (key <= query)

    def kept_sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(batch, head, kept[query], key)

    tokens = len(samples)
    return (
        create_block_mask(sees, None, None, tokens, tokens, device=device.type),
        create_block_mask(kept_sees, None, None, len(kept), tokens, device=device.type),
    )


def ours_step(model: LlamaForCausalLM, rows: Sequence[Row], attention: Attention = "sdpa") -> Tensor:
    """CLHA's loss on `rows`."""
    pack: TreePack = pack_trees([Tree(row.prompt_ids, row.response_ids) for row in rows]).to(model.device)
    if attention == "flex":
        _current.clear()
        _current[id(pack.segments)] = block_masks(rows, pack.kept)
    total = sums(token_logps(model, pack), pack)
    rewards = torch.tensor([row.rewards for row in rows], device=model.device)
    return clha_loss((total / pack.lengths).view_as(rewards), total.view_as(rewards), rewards).total


def ours(
    model: LlamaForCausalLM, *, attention: Attention = "sdpa", autocast: bool = False, name: str = "ours"
) -> Contestant:
    """Our step over `model`. Its packing is timed, unlike the others' collation."""
    model.set_attn_implementation(TREE_ATTENTION if attention == "sdpa" else FLEX)
    return Contestant(name, model, list, lambda rows: ours_step(model, rows, attention), autocast=autocast)
