"""Models whose log-probs trees would change are found out before a training, and nothing of the model is changed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from packing_cases import alone, random_trees
from peft import LoraConfig, PrefixTuningConfig, get_peft_model

from clha_core.packing import forward, support, trees
from clha_core.packing.attention import TREE_ATTENTION
from clha_core.packing.support import attention_window, use_trees, why_not

PRECISIONS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize(
    "architecture", ["llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gemma", "gpt2", "phi", "granite", "cohere"]
)
def test_architectures_with_attention_of_transformers_are_fine(architecture: str) -> None:
    assert why_not(tiny.causal_lm(architecture), tokens=100) is None


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_every_precision_is_judged_by_its_own_measure(dtype: torch.dtype) -> None:
    assert why_not(tiny.causal_lm("llama").to(dtype), tokens=100) is None


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("mistake", ["siblings are seen", "positions go on", "the scale of the logits is forgotten"])
def test_wrong_log_probs_are_noticed(mistake: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.causal_lm("granite", logits_scaling=2.0).to(dtype)
    assert why_not(model, tokens=100) is None
    real = trees.pack_trees

    def mistaken(*args: Any) -> trees.TreePack:
        pack = real(*args)
        if mistake == "positions go on":
            return trees.replace(pack, position_ids=torch.arange(pack.input_ids.shape[1])[None])
        return trees.replace(
            pack,
            masks=tuple(torch.full_like(mask, -torch.inf).triu(mask.shape[1] - len(mask) + 1) for mask in pack.masks),
        )

    if mistake == "the scale of the logits is forgotten":
        monkeypatch.setattr(forward, "LOGIT_CHANGES", ())
    else:
        monkeypatch.setattr(support, "pack_trees", mistaken)
    assert "gives other log-probs on packed trees" in str(why_not(model, tokens=100))


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("bloom", "BloomForCausalLM computes attention in a way of its own"),
        ("mamba", "MambaForCausalLM does not run on packed trees"),
        ("gemma2", "does not know this model's softcap"),
    ],
)
def test_architectures_that_trees_do_not_fit_are_named_with_a_reason(architecture: str, reason: str) -> None:
    assert reason in str(why_not(tiny.causal_lm(architecture), tokens=100))


def test_prompt_tuning_is_refused() -> None:
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    assert why_not(get_peft_model(tiny.causal_lm("llama"), config), tokens=100) is not None


def test_an_adapter_is_fine() -> None:
    config = LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False, task_type="CAUSAL_LM")
    assert why_not(get_peft_model(tiny.causal_lm("llama"), config), tokens=100) is None


@pytest.mark.parametrize(
    ("architecture", "changes", "window"),
    [
        ("mistral", {"sliding_window": 32}, 32),
        ("mistral", {"sliding_window": None}, None),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": False}, None),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 1}, 32),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 2}, None),
        ("gemma2", {"sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]}, 32),
        ("gemma2", {"sliding_window": 32, "layer_types": ["full_attention", "full_attention"]}, None),
        ("llama", {}, None),
    ],
)
def test_the_window_of_attention_is_read_from_the_configuration(
    architecture: str, changes: dict[str, Any], window: int | None
) -> None:
    assert attention_window(tiny.causal_lm(architecture, **changes)) == window


def test_a_window_shorter_than_the_longest_tree_is_refused() -> None:
    model = tiny.causal_lm("mistral", sliding_window=32)
    assert why_not(model, tokens=32) is None
    assert why_not(model, tokens=33) == "MistralForCausalLM attends to 32 tokens at most, and the longest row has 33."


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mamba"], ids=["fits", "raises", "state-space"])
def test_the_check_leaves_the_model_as_it_was(architecture: str) -> None:
    model = tiny.causal_lm(architecture).train()
    model.get_input_embeddings().eval()
    modes = [module.training for module in model.modules()]
    configuration = copy.deepcopy(model.config.to_dict())
    attention = model.config._attn_implementation
    attributes = [set(vars(module)) for module in model.modules()]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    why_not(model, tokens=100)
    assert [module.training for module in model.modules()] == modes
    assert model.config.to_dict() == configuration
    assert model.config._attn_implementation == attention != TREE_ATTENTION
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


@torch.no_grad()
def test_without_trees_a_model_goes_on_as_with_sdpa() -> None:
    model = tiny.causal_lm("llama")
    padded = torch.tensor([[5, 6, 7, 8], [0, 0, 9, 10]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    logits = model(padded, attention_mask=mask).logits
    generated = model.generate(padded, attention_mask=mask, max_new_tokens=12, do_sample=False)
    use_trees(model)
    forward.token_logps(model, trees.pack_trees(random_trees(2)))
    assert model.config._attn_implementation == TREE_ATTENTION
    assert torch.equal(model(padded, attention_mask=mask).logits, logits)
    assert torch.equal(model.generate(padded, attention_mask=mask, max_new_tokens=12, do_sample=False), generated)


def test_a_checkpoint_does_not_name_our_attention(tmp_path: Path) -> None:
    model = tiny.causal_lm("llama")
    use_trees(model)
    model.save_pretrained(tmp_path)
    assert TREE_ATTENTION not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    again = type(model).from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"
    assert torch.equal(alone(again, [5, 6], [7, 8]), alone(model, [5, 6], [7, 8]))
