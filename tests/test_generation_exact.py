"""Answers are those of transformers' own `generate` in file order, whatever slots they went through."""

import random
from typing import Any

import pytest
import tiny
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from clha_core.evaluation.generation import Generation, answers, generate_responses
from clha_core.evaluation.generation.slots import has_slots
from clha_core.evaluation.sampling import Sampling

ENDS = [1, 2, 3, 4, 5]  # so many tokens end an answer that lengths vary, and some answers meet the limit
MAX_NEW_TOKENS = 24
WINDOW = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}


def word_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({f"t{token}": token for token in range(64)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0", eos_token="t1")


TOKENIZER = word_tokenizer()
CHANCE = random.Random(0)
PROMPTS = [CHANCE.choices(range(6, 64), k=length) for length in CHANCE.sample(range(1, 61), 30)]


def causal_lm(architecture: str, **changes: Any) -> PreTrainedModel:
    model = tiny.causal_lm(architecture, **changes)
    model.generation_config = GenerationConfig(eos_token_id=ENDS)
    return model


def plain_generate(model: Any, batch_size: int) -> list[Generation]:
    """File order, padded to the left, cut afterwards."""
    config = GenerationConfig(max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=ENDS)
    found = []
    for start in range(0, len(PROMPTS), batch_size):
        batch = TOKENIZER.pad(
            {"input_ids": PROMPTS[start : start + batch_size]}, padding_side="left", return_tensors="pt"
        )
        for ids in model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :].tolist():
            end = next((place + 1 for place, token in enumerate(ids) if token in ENDS), None)
            text = TOKENIZER.decode(ids[:end], skip_special_tokens=True)
            found.append(Generation(text, end is not None, len(ids[:end])))
    return found


def ours(model: PreTrainedModel, batch_size: int, **options: Any) -> list[Generation]:
    return generate_responses(
        model, TOKENIZER, PROMPTS, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size, description=None, **options
    )


@pytest.mark.parametrize(
    ("architecture", "changes", "slots"),
    [
        ("llama", {}, True),
        ("qwen2", {}, True),
        ("gpt_neox", {}, True),
        ("qwen2", WINDOW, False),
    ],
)
def test_answers_are_those_of_plain_generate(architecture: str, changes: dict[str, Any], slots: bool) -> None:
    model = causal_lm(architecture, **changes)
    assert has_slots(model.config) == slots
    expected = plain_generate(model, batch_size=7)
    assert ours(model, batch_size=4) == expected
    lengths = [answer.tokens for answer in expected]
    assert min(lengths) < 4
    assert max(lengths) == MAX_NEW_TOKENS


@pytest.mark.parametrize("batch_size", [1, 13, 100])
def test_how_many_slots_there_are_changes_nothing(batch_size: int) -> None:
    model = causal_lm("llama")
    assert ours(model, batch_size) == ours(model, batch_size=5)


def test_samples_are_the_same_in_slots_and_in_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal_lm("llama")
    sampling = Sampling(temperature=1.0, top_p=0.9, seeds=range(len(PROMPTS)))
    in_slots = ours(model, batch_size=4, sampling=sampling)
    monkeypatch.setattr(answers, "has_slots", lambda config: False)
    assert ours(model, batch_size=7, sampling=sampling) == in_slots
    assert in_slots != ours(model, batch_size=7)


def test_a_finished_answer_is_not_computed_any_further() -> None:
    model = causal_lm("llama")
    computed = 0

    def count(module: object, args: object, options: dict[str, Any]) -> None:
        nonlocal computed
        computed += options["input_ids"].numel()

    model.register_forward_pre_hook(count, with_kwargs=True)
    found = ours(model, batch_size=8)
    needed = sum(map(len, PROMPTS)) + sum(answer.tokens - 1 for answer in found)
    assert needed <= computed < 1.25 * needed  # the rest is padding of prompts


def test_prompts_are_answered_without_gradients() -> None:
    model = causal_lm("llama")
    graphs = []
    model.register_forward_hook(lambda module, args, output: graphs.append(output.logits.requires_grad))
    ours(model, batch_size=8)
    assert not any(graphs)
    assert torch.is_grad_enabled()
