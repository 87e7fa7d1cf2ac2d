"""Sampled answers follow the model's distribution, and depend on their prompt and seed alone."""

import pytest
import tiny
import torch
from scipy import stats
from transformers import LlamaForCausalLM

from clha_core.evaluation.generation import Generation, generate_responses
from clha_core.evaluation.sampling import Sampler, Sampling

TOKENIZER = tiny.tokenizer()
PROMPTS = [TOKENIZER.encode(text) for text in ("a cat", "How often should I water my basil?", "twice", "Please don't.")]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny.llama(TOKENIZER)


def sample(model: LlamaForCausalLM, prompts: list[list[int]], batch_size: int, **changes: object) -> list[Generation]:
    settings = {"temperature": 1.0, "top_p": 1.0, "seeds": range(len(prompts))} | changes
    return generate_responses(
        model, TOKENIZER, prompts, max_new_tokens=12, batch_size=batch_size, sampling=Sampling(**settings)
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_model_says(temperature: float) -> None:
    draws = 4000
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, -torch.inf])
    counts = [0] * 5
    sampler = Sampler(Sampling(temperature, top_p=1.0, seeds=range(draws)), max_new_tokens=1)
    tokens = sampler.draw(logits.expand(draws, -1), [(prompt, 0) for prompt in range(draws)])
    for token in tokens.tolist():
        counts[token] += 1
    expected = (logits.double() / temperature).softmax(-1).mul(draws).tolist()
    assert counts[4] == 0
    assert stats.chisquare(counts[:4], expected[:4]).pvalue > 1e-3


def test_an_answer_does_not_depend_on_batch_mates(model: LlamaForCausalLM) -> None:
    together = sample(model, PROMPTS, batch_size=4)
    alone = [sample(model, [ids], batch_size=1, seeds=[seed])[0] for seed, ids in enumerate(PROMPTS)]
    assert together == alone == sample(model, PROMPTS, batch_size=3)


def test_other_seeds_give_other_answers_and_the_same_seed_the_same(model: LlamaForCausalLM) -> None:
    answers = sample(model, [PROMPTS[0]] * 6, batch_size=6, seeds=[1, 2, 3, 4, 5, 1])
    assert len({answer.text for answer in answers}) == 5
    assert answers[0] == answers[5]


def test_torchs_own_random_numbers_are_neither_used_nor_moved(model: LlamaForCausalLM) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sample(model, PROMPTS, batch_size=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert sample(model, PROMPTS, batch_size=4) == first


def test_a_very_low_temperature_and_a_very_small_top_p_are_greedy(model: LlamaForCausalLM) -> None:
    greedy = generate_responses(model, TOKENIZER, PROMPTS, max_new_tokens=12, batch_size=4)
    assert sample(model, PROMPTS, batch_size=4, temperature=1e-4) == greedy
    assert sample(model, PROMPTS, batch_size=4, top_p=1e-4) == greedy
    assert sample(model, PROMPTS, batch_size=4) != greedy
