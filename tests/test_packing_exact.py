"""A packed forward gives every response the log-probs and the gradients that it has alone, without packing."""

import random
from typing import Any

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
from torch import Tensor, nn

from clha_core.packing.attention import TREE_ATTENTION
from clha_core.packing.forward import head_gives_logits, sums, token_logps
from clha_core.packing.trees import Tree, pack_trees

ARCHITECTURES = ["llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gemma"]
# Their logits are more than weight times hidden state: scaled, divided, with a bias.
OTHER_HEADS = {"cohere": {"logit_scale": 0.3}, "granite": {"logits_scaling": 4.0}, "phi": {}}


def with_trees(model: Any) -> Any:
    model.set_attn_implementation(TREE_ATTENTION)
    return model


def packed_means(model: nn.Module, trees: list[Tree]) -> Tensor:
    pack = pack_trees(trees)
    return sums(token_logps(model, pack), pack) / pack.lengths


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestArchitecture:
    def test_log_probs_of_a_ragged_pack_are_those_of_each_response_alone(self, architecture: str, tied: bool) -> None:
        model = tiny.causal_lm(architecture, tie_word_embeddings=tied)
        trees = random_trees(*range(2, 9), 1, seed=1)
        with torch.no_grad():
            expected = candidate_means(one_by_one(in_float64(model), trees))
            single = packed_means(with_trees(model), trees)
            double = packed_means(with_trees(in_float64(model)), trees)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(double, expected, rtol=0, atol=1e-10)

    def test_gradients_of_every_parameter_are_those_of_each_response_alone(self, architecture: str, tied: bool) -> None:
        model = tiny.causal_lm(architecture, tie_word_embeddings=tied)
        plain = in_float64(model)
        trees = random_trees(2, 5, 3, seed=2)
        expected = gradients(plain, weighted(candidate_means(one_by_one(plain, trees))))
        assert len(expected) == len(list(model.parameters()))
        double = with_trees(in_float64(model))
        assert largest_relative_error(gradients(double, weighted(packed_means(double, trees))), expected) < 1e-9
        with_trees(model)
        assert largest_relative_error(gradients(model, weighted(packed_means(model, trees))), expected) < 1e-5


@pytest.mark.parametrize("key_value_heads", [1, 2, 4], ids=["multi-query", "grouped-query", "multi-head"])
def test_any_grouping_of_query_heads(key_value_heads: int) -> None:
    model = tiny.causal_lm("llama", num_key_value_heads=key_value_heads)
    trees = random_trees(2, 4, seed=3)
    expected = candidate_means(one_by_one(in_float64(model), trees))
    torch.testing.assert_close(packed_means(with_trees(in_float64(model)), trees), expected, rtol=0, atol=1e-10)


LLAMA = in_float64(tiny.causal_lm("llama"))
LLAMA_PACKED = with_trees(in_float64(tiny.causal_lm("llama")))


@settings(max_examples=25)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=5), st.randoms(use_true_random=False), st.integers(1, 5))
@torch.no_grad()
def test_neither_order_nor_pack_mates_matter(candidates: list[int], rng: random.Random, pack_size: int) -> None:
    trees = [random_tree(count, rng) for count in candidates]
    order = rng.sample(range(len(trees)), len(trees))
    shuffled = [trees[at] for at in order]
    for start in range(0, len(trees), pack_size):
        part = shuffled[start : start + pack_size]
        pack = pack_trees(part)
        expected = torch.cat(one_by_one(LLAMA, part))
        torch.testing.assert_close(token_logps(LLAMA_PACKED, pack), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "tree",
    [
        Tree([5], [[6], [7]]),
        Tree([5], [[6, 7, 8], [9]]),
        Tree([5, 6, 7], [[8], [9], [8]]),
        Tree([5, 6, 7], [[8]]),
        Tree([5, 6], [[7, 8], [7, 8]]),
    ],
    ids=["all of one token", "prompt of one", "responses of one", "one response of one", "the same response twice"],
)
@torch.no_grad()
def test_the_smallest_trees(tree: Tree) -> None:
    trees = [tree, *random_trees(2, seed=4), tree]
    expected = torch.cat(one_by_one(LLAMA, trees))
    torch.testing.assert_close(token_logps(LLAMA_PACKED, pack_trees(trees)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tree", [Tree([], [[5]]), Tree([5], [[6], []]), Tree([5], [])])
def test_a_tree_without_anything_to_score_or_to_score_it_by_is_refused(tree: Tree) -> None:
    with pytest.raises(ValueError, match="one token or more"):
        pack_trees([tree])


@pytest.mark.parametrize("architecture", OTHER_HEADS)
def test_logits_that_are_scaled_or_biased_are_the_models_own(architecture: str) -> None:
    model = tiny.causal_lm(architecture, **OTHER_HEADS[architecture])
    if architecture == "phi":
        nn.init.normal_(model.lm_head.bias)
    assert not head_gives_logits(model)
    plain, packed = in_float64(model), with_trees(in_float64(model))
    trees = random_trees(2, 3, seed=5)
    expected, found = candidate_means(one_by_one(plain, trees)), packed_means(packed, trees)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    error = largest_relative_error(gradients(packed, weighted(found)), gradients(plain, weighted(expected)))
    assert error < 1e-6  # Cohere's norms go through float32


def test_a_cap_on_the_logits_is_the_models_own() -> None:
    model = tiny.causal_lm("gemma2", attn_logit_softcapping=None, final_logit_softcapping=0.5)
    trees = random_trees(2, 3, seed=6)
    with torch.no_grad():
        expected = candidate_means(one_by_one(model, trees))
        torch.testing.assert_close(packed_means(with_trees(model), trees), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_gradient_checkpointing_changes_no_gradient(architecture: str) -> None:
    trees = random_trees(2, 3, seed=7)
    model = with_trees(in_float64(tiny.causal_lm(architecture))).train()
    expected = gradients(model, weighted(packed_means(model, trees)))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    calls = []
    model.base_model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(True))
    found = gradients(model, weighted(packed_means(model, trees)))
    assert len(calls) == 2  # once forward, once again in the backward pass
    assert largest_relative_error(found, expected) < 1e-12


@torch.no_grad()
def test_bfloat16_autocast_is_as_near_as_without_packing() -> None:
    model = tiny.causal_lm("llama")
    trees = random_trees(2, 4, 3, seed=8)
    exact = torch.cat(one_by_one(in_float64(model), trees))
    with torch.autocast("cpu", torch.bfloat16):
        plain = torch.cat(one_by_one(model, trees)) - exact
        packed = token_logps(with_trees(model), pack_trees(trees)) - exact
    assert packed.abs().max() > 1e-4  # it was bfloat16
    assert packed.square().mean().sqrt() < 1.5 * plain.square().mean().sqrt()


def test_mixed_precision_of_accelerate_reaches_the_packed_forward() -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    model = with_trees(tiny.causal_lm("llama"))
    pack = pack_trees(random_trees(2, 3, seed=9))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = token_logps(model, pack)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare_model(model)
        with torch.no_grad():
            found = token_logps(prepared, pack)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj", "down_proj"], ["q_proj", "lm_head"]], ids=["body", "head"])
def test_an_adapter_of_peft_is_trained_and_nothing_else(targets: list[str]) -> None:
    from peft import LoraConfig, get_peft_model

    trees = random_trees(2, 3, seed=10)
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    plain = get_peft_model(in_float64(tiny.causal_lm("llama")), config).double()
    packed = get_peft_model(in_float64(tiny.causal_lm("llama")), config).double()
    packed.load_state_dict(plain.state_dict())
    with_trees(packed.get_base_model())
    expected, found = candidate_means(one_by_one(plain, trees)), packed_means(packed, trees)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    adapter = gradients(packed, weighted(found))
    assert adapter.keys() == {name for name, _ in packed.named_parameters() if "lora_" in name}
    assert largest_relative_error(adapter, gradients(plain, weighted(expected))) < 1e-9


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_the_last_layer_computes_keys_and_values_of_all_rows_and_the_rest_of_those_that_are_read(
    architecture: str,
) -> None:
    model = with_trees(tiny.causal_lm(architecture))
    pack = pack_trees(random_trees(2, 3, seed=12))
    rows = {}
    for name, module in model.base_model.layers[-1].named_modules():
        if name.endswith("_proj"):
            module.register_forward_pre_hook(lambda _, args, name=name: rows.update({name: args[0].shape[1]}))
    token_logps(model, pack)
    read, tokens = len(pack.kept), pack.input_ids.shape[1]
    assert read < tokens
    assert {name for name, count in rows.items() if count == tokens} == {"self_attn.k_proj", "self_attn.v_proj"}
    assert {count for name, count in rows.items() if not name.endswith(("k_proj", "v_proj"))} == {read}


def test_the_model_is_left_as_it_was() -> None:
    model = with_trees(tiny.causal_lm("llama"))
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    token_logps(model, pack_trees(random_trees(2, seed=11)))
    assert all(vars(module).keys() == before[name].keys() for name, module in model.named_modules())


def test_trees_longer_than_a_sliding_window_are_an_error_not_other_log_probs() -> None:
    model = with_trees(tiny.causal_lm("mistral", sliding_window=4))
    with pytest.raises(ValueError, match="windows"):
        token_logps(model, pack_trees([Tree([2, 3, 4], [[5, 6], [7, 8]])]))
