"""Trees to score, and the slow and plain way to score them: one response at a time, in float64, without padding."""

import copy
import functools
import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clha_core.packing.trees import Tree

VOCABULARY = 64  # of tiny.causal_lm


def random_tree(candidates: int, rng: random.Random) -> Tree:
    """A prompt of 1 to 12 tokens and responses of 1 to 9."""

    def ids(longest: int) -> list[int]:
        return [rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, longest))]

    return Tree(ids(12), [ids(9) for _ in range(candidates)])


def random_trees(*candidates: int, seed: int = 0) -> list[Tree]:
    """One tree for each number of candidates."""
    rng = random.Random(seed)
    return [random_tree(count, rng) for count in candidates]


def alone(model: nn.Module, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probs of a response's tokens by the model's own forward, in the model's own precision."""
    logits = model(torch.tensor([prompt + response]), use_cache=False).logits[0]
    predicting = logits[len(prompt) - 1 : -1]
    return predicting.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


def one_by_one(model: nn.Module, trees: list[Tree]) -> list[Tensor]:
    """Log-probs of every response of every tree."""
    return [alone(model, tree.prompt, response) for tree in trees for response in tree.responses]


def in_float64(model: nn.Module) -> nn.Module:
    """A copy in float64 throughout: transformers' RMS norms would go through float32 even so."""
    model = copy.deepcopy(model).double()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = functools.partial(rms_norm, module)
    return model


def rms_norm(module: Any, hidden: Tensor) -> Tensor:
    """What an RMS norm of transformers computes, in the precision of its input."""
    weight = module.weight + 1 if type(module).__name__.startswith("Gemma") else module.weight
    eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
    return F.rms_norm(hidden, weight.shape, weight, eps)


def candidate_means(values: list[Tensor]) -> Tensor:
    """(C,) mean log-prob of each response."""
    return torch.stack([value.mean() for value in values])


def weighted(means: Tensor) -> Tensor:
    """A loss in which every response counts, each differently."""
    return (means * torch.linspace(-1.0, 2.0, len(means), dtype=means.dtype)).sum()


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Gradient of every trainable parameter; a parameter without one is a KeyError for who looks for it."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def largest_relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Over all parameters, |difference| / |expected|, in the Euclidean norm."""
    assert found.keys() == expected.keys()
    return max(((found[name].double() - expected[name]).norm() / expected[name].norm()).item() for name in expected)
