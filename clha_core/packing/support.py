"""Whether a model gives its own log-probs when trees are packed, found out by trying.

Lists of architectures go stale, and a wrong log-prob does not crash. So every training starts with two tiny trees,
packed and one response at a time.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from clha_core.models.zero3 import gathered_in_calls
from clha_core.packing.attention import TREE_ATTENTION
from clha_core.packing.forward import causal_lm, token_logps
from clha_core.packing.head import picked_logps
from clha_core.packing.trees import Tree, pack_trees

# Of the two trees: tokens of the prompt, and of each response.
SHAPES = ((6, (4, 3, 5)), (5, (4, 1)))
# Root mean square of the differences, as a share of the log-probs' standard deviation. Right models show a tenth of it;
# a wrong mask shows 0.02 to 0.7 and wrong positions 0.001 to 0.6, the small ones in models that are not trained yet.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 3e-4, torch.float16: 0.01, torch.bfloat16: 0.05}


def use_trees(model: nn.Module) -> None:
    """Make `clha_tree` the attention of a causal language model; without trees it goes on as with `sdpa`."""
    causal_lm(model).set_attn_implementation(TREE_ATTENTION)


def why_not(
    model: nn.Module,
    tokens: int,
    *,
    error: Callable[[nn.Module], float] | None = None,
    values: str = "log-probs",
) -> str | None:
    """A sentence saying why a model's log-probs cannot be had from packed trees; None where they can.

    The model is left as it was. It computes some fifty tokens.

    Args:
        model: a causal model with the attention that it was loaded with; adapters may be on it.
        tokens: of the longest tree in the data.
        error: of what else is had from packed trees, in its standard deviations. It is called without gradients and
            dropout, and may change the model's attention.
        values: what that is called.
    """
    language_model = causal_lm(model)
    name = type(language_model).__name__
    if not language_model._can_set_attn_implementation():
        return f"{name} computes attention in a way of its own, which cannot be exchanged."
    if (window := attention_window(language_model)) is not None and window < tokens:
        return f"{name} attends to {window} tokens at most, and the longest row has {tokens}."
    try:
        with _left_as_it_was(model, language_model), gathered_in_calls(model):
            found = (error or _error_of_trees)(model)
    except Exception as failure:  # whatever an unknown architecture does not like about trees
        return f"{name} does not run on packed trees ({type(failure).__name__}: {str(failure).split(chr(10))[0]})."
    allowed = TOLERANCE[lowest_precision(language_model)]
    if found <= allowed:
        return None
    return f"{name} gives other {values} on packed trees (off by {found:.2g} standard deviations, {allowed:g} allowed)."


def attention_window(language_model: PreTrainedModel) -> int | None:
    """The fewest tokens that a layer attends to, of those that do not attend to all; None where all do."""
    config = language_model.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    windows = [
        getattr(config, name, None)
        for name, layer in (("sliding_window", "sliding_attention"), ("attention_chunk_size", "chunked_attention"))
        if layers is None or layer in layers
    ]
    # Some configurations name a window and say elsewhere that it isn't used.
    if getattr(config, "use_sliding_window", True) is False:
        windows = windows[1:]
    return min((window for window in windows if window is not None), default=None)


def random_trees(model: nn.Module) -> list[Tree]:
    """Two tiny trees of a model's token ids, always the same."""
    rng = random.Random(0)
    vocabulary = causal_lm(model).config.get_text_config().vocab_size

    def ids(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    return [Tree(ids(prompt), [ids(response) for response in responses]) for prompt, responses in SHAPES]


def _error_of_trees(model: nn.Module) -> float:
    """Of log-probs from packed trees against those of each response alone, in their standard deviations."""
    device = causal_lm(model).device

    def alone(prompt: list[int], response: list[int]) -> Tensor:
        logits = model(input_ids=torch.tensor([prompt + response], device=device), use_cache=False).logits
        return picked_logps(logits[0, len(prompt) - 1 : -1], torch.tensor(response, device=device))

    trees = random_trees(model)
    expected = torch.cat([alone(tree.prompt, response) for tree in trees for response in tree.responses])
    use_trees(model)
    difference = token_logps(model, pack_trees(trees).to(device)) - expected
    return (difference.square().mean().sqrt() / expected.std()).item()


@contextmanager
def _left_as_it_was(model: nn.Module, language_model: PreTrainedModel) -> Iterator[None]:
    """No gradients, no dropout; afterwards the same mode, attention and random numbers as before."""
    training = [(module, module.training) for module in model.modules()]
    configs = [module.config for module in language_model.modules() if isinstance(module, PreTrainedModel)]
    attention = [(config, config._attn_implementation) for config in configs]
    device = language_model.device
    generators = [] if device.type == "cpu" else [device]
    with torch.no_grad(), torch.random.fork_rng(generators, device_type=device.type):
        model.eval()
        try:
            yield
        finally:
            for module, mode in training:
                module.training = mode
            for config, implementation in attention:
                config._attn_implementation_internal = implementation


def lowest_precision(model: nn.Module) -> torch.dtype:
    """Of the weights; those of a quantised model are not counted, their neighbours' precision is computed in."""
    sharding = getattr(causal_lm(model).config, "distributed_config", None)
    if sharding is not None and sharding.fsdp_mixed_precision:
        return torch.bfloat16  # FSDP gathers them so
    return max(
        (weight.dtype for weight in model.parameters() if weight.dtype in TOLERANCE),
        key=lambda dtype: torch.finfo(dtype).eps,
    )
