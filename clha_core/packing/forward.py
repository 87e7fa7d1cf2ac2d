"""Log-probs of a pack's responses under a causal language model of transformers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from clha_core.packing.head import target_logps
from clha_core.packing.last_layer import last_layer, trimmed
from clha_core.packing.trees import TreePack


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """The language model itself, inside what wraps it: accelerate, DDP, FSDP, and peft's adapters."""
    inner: Any = model
    while hasattr(inner, "module"):
        inner = inner.module
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def token_logps(model: nn.Module, pack: TreePack) -> Tensor:
    """Log-prob of every scored token of a pack, (S,), in the order of `pack.targets`.

    Args:
        model: a causal language model whose attention is `clha_tree`; it may be wrapped (DDP, FSDP, peft).
    """
    language_model = causal_lm(model)
    body, head = language_model.base_model, language_model.get_output_embeddings()
    last = last_layer(body)

    def forward(**_: Any) -> Tensor:  # peft fills in arguments of its own
        with redirected(last, trimmed(last, pack.kept)) if last is not None else nullcontext():
            states = body(
                input_ids=pack.input_ids,
                position_ids=pack.position_ids,
                # Four dimensions are taken as they are: no mask of the pack's square is made.
                attention_mask=pack.input_ids.new_ones((1, 1, 1, 1), dtype=torch.bool),
                use_cache=False,
                trees=(pack.segments, pack.masks),
            ).last_hidden_state[0]
        if last is None:
            states = states[pack.kept]
        with redirected(head, lambda hidden: target_logps(hidden, head.weight, pack.targets)):
            return head(states[pack.read])

    with redirected(language_model, forward):
        return model(input_ids=pack.input_ids)


def sums(token_values: Tensor, pack: TreePack) -> Tensor:
    """(C,) sums over the tokens of each response."""
    return token_values.new_zeros(len(pack.lengths)).index_add(0, pack.candidate, token_values)


@contextmanager
def redirected(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside the block, calling `module` (or what wraps it) runs `forward`, between the module's usual hooks.

    DDP, FSDP and ZeRO gather weights and reduce gradients in hooks around a module's call, so a part of a model is not
    to be called past them.
    """
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
