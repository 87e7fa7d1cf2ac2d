"""Padded sequences give every response the log-probs and the gradients that it has alone."""

import random

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_cases import (
    candidate_means,
    gradients,
    in_float64,
    largest_relative_error,
    one_by_one,
    random_tree,
    random_trees,
    weighted,
)

from clha_core.packing.forward import sums
from clha_core.packing.padded import padded_token_logps
from clha_core.packing.trees import Tree, pack_trees

# Those that trees do not fit among them: this is their way.
ARCHITECTURES = ["llama", "qwen2", "gpt_neox", "gemma", "gpt2", "bloom", "mamba", "gemma2", "cohere", "mistral"]
GPT_NEOX = in_float64(tiny.causal_lm("gpt_neox"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_log_probs_are_those_of_each_response_alone_in_a_packs_order(architecture: str) -> None:
    changes = {"sliding_window": 6} if architecture == "mistral" else {}
    model = tiny.causal_lm(architecture, **changes)
    trees = random_trees(2, 5, 1, 3, seed=1)
    expected = one_by_one(in_float64(model), trees)
    found = padded_token_logps(model, trees)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), torch.cat(expected).double(), rtol=0, atol=1e-5)
    pack = pack_trees(trees)
    means = sums(found, pack) / pack.lengths
    torch.testing.assert_close(means.double(), candidate_means(expected).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bloom", "gpt_neox"])
def test_gradients_of_every_parameter_are_those_of_each_response_alone(architecture: str) -> None:
    model = in_float64(tiny.causal_lm(architecture))
    trees = random_trees(2, 4, seed=2)
    pack = pack_trees(trees)
    expected = gradients(model, weighted(candidate_means(one_by_one(model, trees))))
    found = gradients(model, weighted(sums(padded_token_logps(model, trees), pack) / pack.lengths))
    assert largest_relative_error(found, expected) < 1e-9
    model.float()
    single = gradients(model, weighted(sums(padded_token_logps(model, trees), pack) / pack.lengths))
    assert largest_relative_error(single, expected) < 1e-5


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.randoms(use_true_random=False))
@torch.no_grad()
def test_neither_order_nor_batch_mates_matter(candidates: list[int], rng: random.Random) -> None:
    trees = [random_tree(count, rng) for count in candidates]
    for part in (trees, trees[::-1], trees[:1]):
        torch.testing.assert_close(
            padded_token_logps(GPT_NEOX, part), torch.cat(one_by_one(GPT_NEOX, part)), rtol=0, atol=1e-10
        )


@torch.no_grad()
def test_responses_and_prompts_of_one_token() -> None:
    trees = [Tree([5], [[6], [7]]), Tree([5, 6, 7], [[8], [9, 10]])]
    torch.testing.assert_close(
        padded_token_logps(GPT_NEOX, trees), torch.cat(one_by_one(GPT_NEOX, trees)), rtol=0, atol=1e-10
    )
