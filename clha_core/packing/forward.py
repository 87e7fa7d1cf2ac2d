"""Log-probs of a pack's responses under a causal language model of transformers.

The model's own forward runs, so that autocast, gradient hooks and adapters around it work as ever. Only its output
layer (and, where it is known, its last decoder layer) is redirected to the rows that scores are read from.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from clha_core.packing.head import picked_logps, target_logps
from clha_core.packing.last_layer import last_layer, trimmed
from clha_core.packing.lean import lean_layers
from clha_core.packing.redirect import redirected
from clha_core.packing.trees import TreePack

# What configurations call a scale or a cap of the logits, behind the output layer. A model that hides it under another
# name gets wrong log-probs, and `clha_core.packing.support.why_not` says so.
LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """The language model itself, inside what wraps it: accelerate, DDP, FSDP, and peft's adapters."""
    inner: Any = model
    while hasattr(inner, "module"):
        inner = inner.module
    language_model: PreTrainedModel = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    return language_model


def token_logps(model: nn.Module, pack: TreePack) -> Tensor:
    """Log-prob of every scored token of a pack, (S,), in the order of `pack.targets`, in float32 or float64.

    Args:
        model: a causal language model whose attention is `clha_tree`; it may be wrapped (DDP, FSDP, peft).
    """
    language_model = causal_lm(model)
    head: Any = language_model.get_output_embeddings()
    own_head = head.forward
    fused = head_gives_logits(language_model)
    last = last_layer(language_model.base_model)

    def scores(hidden: Tensor) -> Tensor:
        states = hidden[0] if last is not None else hidden[0, pack.kept]
        if fused:
            return target_logps(states[pack.read], head.weight, pack.targets)
        return own_head(states[pack.read].unsqueeze(0))

    with ExitStack() as stack:
        stack.enter_context(redirected(head, scores))
        if last is not None:
            stack.enter_context(redirected(last, trimmed(last, pack.kept)))
            stack.enter_context(lean_layers(language_model.base_model))
        logits: Tensor = model(
            input_ids=pack.input_ids,
            position_ids=pack.position_ids,
            # Four dimensions are taken as they are: no mask of the pack's square is made.
            attention_mask=pack.input_ids.new_ones((1, 1, 1, 1), dtype=torch.bool),
            use_cache=False,
            trees=(pack.segments, pack.masks),
        ).logits
    return logits if fused else picked_logps(logits[0], pack.targets)


def head_gives_logits(language_model: PreTrainedModel) -> bool:
    """Whether the logits are the output layer's weight times the hidden states, and nothing else.

    Not so with a bias, a quantised layer, an adapter on it, or where the model scales or caps its logits. Their logits
    are the model's own then, which costs memory: all of them at once, and more than once.
    """
    head = language_model.get_output_embeddings()
    config = language_model.config.get_text_config()
    changes = [getattr(config, name, None) for name in LOGIT_CHANGES]
    return (
        isinstance(head, nn.Linear)
        and head.bias is None
        and head.weight.is_floating_point()
        and all(change in (None, 1) for change in changes)
    )


def sums(token_values: Tensor, pack: TreePack) -> Tensor:
    """(C,) sums over the tokens of each response."""
    return token_values.new_zeros(len(pack.lengths)).index_add(0, pack.candidate, token_values)
