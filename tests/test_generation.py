"""Greedy generation: independent of the batch, ended by the next role marker or the end-of-sequence token."""

import copy
import warnings

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from clha_core.errors import UserError
from clha_core.evaluation.generation import Generation, generate_responses

CORPUS = [
    "\n\nHuman: How do I water a cactus?\n\nAssistant: Water it once a week, and not in winter.",
    "\n\nHuman: Why is the sky blue?\n\nAssistant: Air scatters blue light more than red light.",
] * 4
PROMPTS = [
    "\n\nHuman: Why?\n\nAssistant:",
    "\n\nHuman: How do I water a cactus?\n\nAssistant: Once a week.\n\nHuman: In winter?\n\nAssistant:",
    "\n\nHuman: Is the sky blue?\n\nAssistant:",
    "\n\nHuman: red\n\nAssistant:",
    "\n\nHuman: Why is a cactus not blue in winter?\n\nAssistant:",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(CORPUS, vocab_size=300, special_tokens=["<eos>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", pad_token="<eos>")


def random_llama(vocab_size: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config)


class Parrot(LlamaForCausalLM):
    """Says a fixed text, token by token, after any prompt: greedy decoding of a model that has learnt it."""

    def __init__(self, vocab_size: int, script: list[int]) -> None:
        super().__init__(random_llama(vocab_size).config)
        self.script, self.said = script, 0

    def forward(self, *args: object, **kwargs: object) -> object:
        output = super().forward(*args, **kwargs)
        output.logits[:, -1, :] = 0
        output.logits[:, -1, self.script[self.said]] = 1
        self.said += 1
        return output


def say(tokenizer: PreTrainedTokenizerFast, text: str, *, max_new_tokens: int = 60) -> Generation:
    """What generate_responses makes of a model that wants to say `text`."""
    prompt = tokenizer.encode(PROMPTS[0])
    script = [*tokenizer.encode(text), *tokenizer.encode("!" * max_new_tokens)]
    parrot = Parrot(len(tokenizer), script)
    return generate_responses(parrot, tokenizer, [prompt], max_new_tokens=max_new_tokens, batch_size=1)[0]


def test_an_answer_does_not_depend_on_batch_mates_and_keeps_its_place(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = random_llama(len(tokenizer))
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]

    together = generate_responses(model, tokenizer, prompts, max_new_tokens=24, batch_size=3)
    alone = [generate_responses(model, tokenizer, [prompt], max_new_tokens=24, batch_size=1)[0] for prompt in prompts]

    assert together == alone
    assert len({answer.text for answer in alone}) == len(prompts), "equal answers could not show a wrong order"


def test_answers_are_those_of_a_plain_greedy_loop(tokenizer: PreTrainedTokenizerFast) -> None:
    model = random_llama(len(tokenizer)).eval()
    prompt = tokenizer.encode(PROMPTS[1])
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(10):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))

    (answer,) = generate_responses(model, tokenizer, [prompt], max_new_tokens=10, batch_size=4)

    assert answer == Generation(str(tokenizer.decode(ids[len(prompt) :])).strip(), finished=False, tokens=10)


@pytest.mark.parametrize("marker", ["\n\nHuman:", "\n\nAssistant:"])
def test_the_next_role_marker_ends_an_answer_and_is_cut(tokenizer: PreTrainedTokenizerFast, marker: str) -> None:
    answer = say(tokenizer, f" Once a week.{marker} And then?")

    assert (answer.text, answer.finished) == ("Once a week.", True)
    assert answer.tokens == len(tokenizer.encode(f" Once a week.{marker}"))


def test_the_end_of_sequence_token_ends_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    answer = say(tokenizer, " Once a week.<eos> never read")

    assert answer == Generation("Once a week.", finished=True, tokens=len(tokenizer.encode(" Once a week.<eos>")))


def test_what_ends_a_turn_of_the_chat_template_ends_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    chatty = copy.deepcopy(tokenizer)
    chatty.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    chatty.chat_template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    answer = say(chatty, " Once a week.<|end|> never read")
    assert answer == Generation("Once a week.", finished=True, tokens=len(chatty.encode(" Once a week.<|end|>")))


def test_the_length_limit_leaves_an_answer_unfinished(tokenizer: PreTrainedTokenizerFast) -> None:
    answer = say(tokenizer, " Once a week, and not in winter.", max_new_tokens=3)

    assert (answer.finished, answer.tokens) == (False, 3)
    assert "Once a week, and not in winter.".startswith(answer.text)


def test_paragraphs_and_the_bare_word_human_do_not_end_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    answer = say(tokenizer, " A Human:\n\nhand\n\nwrites.<eos>")

    assert answer.text == "A Human:\n\nhand\n\nwrites."


def test_the_marker_at_the_end_of_the_prompt_does_not_count(tokenizer: PreTrainedTokenizerFast) -> None:
    # The first generated token completes the marker only together with the prompt's last one.
    prompt = tokenizer.encode("\n\nHuman: Why?\n\nAssistant")
    script = [*tokenizer.encode(": Because.<eos>"), 0]
    parrot = Parrot(len(tokenizer), script)

    (answer,) = generate_responses(parrot, tokenizer, [prompt], max_new_tokens=20, batch_size=1)

    assert answer.text == ": Because."


def test_sampling_settings_of_a_checkpoint_are_ignored_and_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    model = random_llama(len(tokenizer)).train()
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    plain = generate_responses(model, tokenizer, prompts, max_new_tokens=12, batch_size=2)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=3.0, top_p=0.8, repetition_penalty=9.0, max_new_tokens=2
    )
    before = copy.deepcopy(model.generation_config)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = generate_responses(model, tokenizer, prompts, max_new_tokens=12, batch_size=2)

    assert answers == plain
    assert model.generation_config.to_dict() == before.to_dict()
    assert model.training


def test_no_prompts_give_no_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    assert generate_responses(random_llama(300), tokenizer, [], max_new_tokens=4, batch_size=2) == []


def test_a_prompt_without_tokens_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="number 1"):
        generate_responses(random_llama(300), tokenizer, [[5], []], max_new_tokens=4, batch_size=2)


def test_a_tokenizer_without_padding_and_end_is_refused() -> None:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(CORPUS, vocab_size=260, show_progress=False)
    model = random_llama(300)
    model.generation_config = GenerationConfig()
    with pytest.raises(UserError, match="eos_token"):
        generate_responses(model, PreTrainedTokenizerFast(tokenizer_object=bpe), [[5]], max_new_tokens=4, batch_size=1)
