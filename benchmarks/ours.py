"""Our own step, behind `ours_step`: a stand-in for the packing engine, and the only place to put it in.

All samples of a step lie in one row; each prompt is computed once, its candidates see it and themselves, and log-probs
are made at response positions only.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, LlamaForCausalLM

from benchmarks.batches import Row
from benchmarks.contestant import Contestant
from clha_core import clha_loss

Attention = Literal["sdpa", "flex"]


class ResponseLogps(torch.autograd.Function):
    """Log-probs of `targets` (tokens,) at `hidden` (tokens, width); the logits' buffer becomes their gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        logits = hidden @ head.t()
        lse = torch.logsumexp(logits.float(), -1)
        ctx.save_for_backward(hidden, head, targets)
        ctx.logits, ctx.lse = logits, lse
        return logits.gather(1, targets[:, None]).squeeze(1).float() - lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, head, targets = ctx.saved_tensors
        logits = ctx.logits
        grad = grads[0].to(logits.dtype)[:, None]
        logits.sub_(ctx.lse[:, None].to(logits.dtype)).exp_().mul_(-grad)
        logits.scatter_add_(1, targets[:, None], grad)
        grad_hidden = logits @ head.to(logits.dtype)
        grad_head = logits.t() @ hidden.to(logits.dtype)
        return grad_hidden.to(hidden.dtype), grad_head.to(head.dtype), None


def tree_mask(prompt: int, candidates: Sequence[int], device: torch.device) -> Tensor:
    """Boolean (candidate tokens, all tokens): a candidate sees the prompt and, causally, itself."""
    total = prompt + sum(candidates)
    owner = torch.repeat_interleave(
        torch.arange(len(candidates), device=device), torch.tensor(candidates, device=device)
    )
    positions = torch.arange(total - prompt, device=device)
    itself = (owner[:, None] == owner) & (positions[:, None] >= positions)
    return torch.cat([torch.ones(total - prompt, prompt, dtype=torch.bool, device=device), itself], 1)


def sdpa_tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    tree: list[tuple[int, int, int, Tensor]],
    **_: Any,
) -> tuple[Tensor, None]:
    """Two calls of SDPA a sample: the prompt causally, then all candidates against everything."""
    grouped = query.shape[1] != key.shape[1]
    parts = []
    for start, split, end, mask in tree:
        k, v = key[:, :, start:end], value[:, :, start:end]
        prompt = split - start
        parts.append(
            F.scaled_dot_product_attention(
                query[:, :, start:split],
                k[:, :, :prompt],
                v[:, :, :prompt],
                is_causal=True,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
        if end > split:
            parts.append(
                F.scaled_dot_product_attention(
                    query[:, :, split:end], k, v, attn_mask=mask, scale=scaling, enable_gqa=grouped
                )
            )
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


_compiled_flex = torch.compile(flex_attention, dynamic=True)


def flex_tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    tree: BlockMask,
    **_: Any,
) -> tuple[Tensor, None]:
    """One call of flex_attention for the whole row; it has no backward on a CPU."""
    attend = _compiled_flex if query.is_cuda else flex_attention
    out = attend(query, key, value, block_mask=tree, scale=scaling, enable_gqa=query.shape[1] != key.shape[1])
    assert isinstance(out, Tensor)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("benchmark_tree_sdpa", sdpa_tree_attention)
AttentionInterface.register("benchmark_tree_flex", flex_tree_attention)


def _flex_tree(samples: Sequence[int], owners: Sequence[int], device: torch.device) -> BlockMask:
    """The tree as a mask over the row: `samples` and `owners` name each token's sample and candidate (-1: prompt)."""
    sample, owner = torch.tensor(samples, device=device), torch.tensor(owners, device=device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        related = (owner[key] == -1) | (owner[key] == owner[query])
        return (sample[key] == sample[query]) & related & (key <= query)

    return create_block_mask(sees, None, None, len(samples), len(samples), device=device.type)


def ours_step(model: LlamaForCausalLM, rows: Sequence[Row], attention: Attention = "sdpa") -> Tensor:
    """CLHA's loss on `rows`, packing included."""
    ids: list[int] = []
    positions: list[int] = []
    samples: list[int] = []
    owners: list[int] = []
    read: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    layout = []
    for sample, row in enumerate(rows):
        start, prompt = len(ids), len(row.prompt_ids)
        split = start + prompt
        ids += row.prompt_ids
        positions += range(prompt)
        owners += [-1] * prompt
        for candidate, response in enumerate(row.response_ids):
            read += [split - 1, *range(len(ids), len(ids) + len(response) - 1)]
            targets += response
            lengths.append(len(response))
            # The last token predicts nothing that counts, so it is not computed.
            ids += response[:-1]
            positions += range(prompt, prompt + len(response) - 1)
            owners += [candidate] * (len(response) - 1)
        samples += [sample] * (len(ids) - start)
        if attention == "sdpa":
            mask = tree_mask(prompt, [len(response) - 1 for response in row.response_ids], model.device)
            layout.append((start, split, len(ids), mask))
    device = model.device
    hidden = model.model(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        tree=layout if attention == "sdpa" else _flex_tree(samples, owners, device),
        use_cache=False,
    ).last_hidden_state[0]
    picked = hidden[torch.tensor(read, device=device)]
    logps = ResponseLogps.apply(picked, model.lm_head.weight, torch.tensor(targets, device=device))
    counts = torch.tensor(lengths, device=device)
    which = torch.repeat_interleave(torch.arange(len(lengths), device=device), counts)
    sums = logps.new_zeros(len(lengths)).index_add(0, which, logps)
    rewards = torch.tensor([row.rewards for row in rows], device=device)
    return clha_loss((sums / counts).view_as(rewards), sums.view_as(rewards), rewards).total


def ours(
    model: LlamaForCausalLM, *, attention: Attention = "sdpa", autocast: bool = False, name: str = "ours"
) -> Contestant:
    """Our step over `model`. Its packing is timed, unlike the others' collation."""
    model.set_attn_implementation(f"benchmark_tree_{attention}")
    return Contestant(name, model, list, lambda rows: ours_step(model, rows, attention), autocast=autocast)
