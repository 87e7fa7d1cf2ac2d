"""A sequence has an exact boundary, at most one BOS and exactly one EOS per complete response."""

import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from clha_core.errors import UserError
from clha_core.tokenization import (
    PromptFormat,
    chat_text,
    encode_prompt,
    encode_row,
    following_ids,
    hh_prompt,
    response_frame,
)

PLAIN = tiny.tokenizer()
TURNS = [
    {"role": "user", "content": "How often should I water my basil?"},
    {"role": "assistant", "content": "twice a week"},
    {"role": "user", "content": "it was 42?"},
]
LENGTHS = {"prompt_format": "hh", "max_length": 96, "max_prompt_length": 64}


def with_bos() -> PreTrainedTokenizerFast:
    made = tiny.tokenizer()
    made.add_special_tokens({"bos_token": "<bos>"})
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", made.bos_token_id)]
    )
    return made


def test_a_prompt_ends_where_the_response_begins() -> None:
    encoded = encode_row(PLAIN, TURNS, ["I hope that helps!"], **LENGTHS)
    assert PLAIN.decode(encoded.prompt_ids) == hh_prompt(TURNS)
    assert PLAIN.decode(encoded.response_ids[0]) == " I hope that helps!<eos>"


@settings(max_examples=50, deadline=None)
@given(response=st.text(min_size=1, max_size=60))
@example(response="a cat <eos> sat <pad>")  # what looks like a special token in data is text
def test_every_complete_response_has_exactly_one_eos_at_its_end(response: str) -> None:
    encoded = encode_row(PLAIN, TURNS[:1], [response], prompt_format="hh", max_length=900, max_prompt_length=200)
    ids = encoded.response_ids[0]
    assert ids[-1] == PLAIN.eos_token_id
    assert ids.count(PLAIN.eos_token_id) == 1
    assert not encoded.truncated_responses


def test_a_sentencepiece_like_tokenizer_gets_one_space_before_the_response_not_two() -> None:
    made = tiny.sentencepiece_like_tokenizer()
    encoded = encode_row(made, TURNS[:1], ["a cat sat"], **LENGTHS)
    assert made.convert_ids_to_tokens(encoded.response_ids[0])[0] == "\u2581a"


def test_a_truncated_response_has_no_false_eos_and_is_counted() -> None:
    lengths = {"max_length": 64, "max_prompt_length": 40}
    encoded = encode_row(PLAIN, TURNS[:1], ["a cat " * 90, "a cat"], prompt_format="hh", **lengths)
    assert PLAIN.eos_token_id not in encoded.response_ids[0]
    assert len(encoded.prompt_ids) + len(encoded.response_ids[0]) == 64
    assert encoded.truncated_responses == 1


def test_a_long_prompt_loses_its_oldest_tokens() -> None:
    whole, _ = encode_prompt(PLAIN, TURNS, "hh", 1000)
    cut, truncated = encode_prompt(PLAIN, TURNS, "hh", 10)
    assert truncated
    assert cut == whole[-10:]


def test_one_bos_where_the_tokenizer_adds_one_also_after_truncation() -> None:
    made = with_bos()
    for limit in (1000, 10):
        ids, _ = encode_prompt(made, TURNS, "hh", limit)
        assert ids[0] == made.bos_token_id
        assert ids.count(made.bos_token_id) == 1
        assert len(ids) <= limit


def test_the_chat_template_of_the_tokenizer_is_used() -> None:
    made = tiny.tokenizer(chat=True)
    ids, _ = encode_prompt(made, TURNS[:1], "chat_template", 1000)
    assert made.decode(ids) == f"<|im_start|>user\n{TURNS[0]['content']}<|im_end|>\n<|im_start|>assistant\n"


FAMILIES = {
    "byte-level": tiny.tokenizer(),
    "leading space": tiny.sentencepiece_like_tokenizer(),
    "leading space at the start": tiny.sentencepiece_like_tokenizer("first"),
    "merges across": tiny.merging_tokenizer(),
}


def family(name: str) -> PreTrainedTokenizerFast:
    made = FAMILIES[name]
    made.chat_template = tiny.CHAT_TEMPLATE
    return made


@pytest.mark.parametrize("prompt_format", ["hh", "chat_template"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_policy_is_trained_on_the_prompt_that_generation_gives_it(name: str, prompt_format: PromptFormat) -> None:
    made = family(name)
    encoded = encode_row(
        made, TURNS, ["You should"], prompt_format=prompt_format, max_length=200, max_prompt_length=150
    )
    prompt, _ = encode_prompt(made, TURNS, prompt_format, 150)
    assert encoded.prompt_ids == prompt
    text = hh_prompt(TURNS) if prompt_format == "hh" else chat_text(made, TURNS, add_generation_prompt=True)
    assert prompt == made(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("name", "prompt_format", "start"),
    [
        ("byte-level", "hh", "\u0120"),
        ("byte-level", "chat_template", "Y"),
        ("leading space", "hh", "\u2581You"),
        ("leading space", "chat_template", "Y"),
        ("leading space at the start", "hh", "\u2581You"),
        ("leading space at the start", "chat_template", "Y"),
        ("merges across", "hh", " You"),
        ("merges across", "chat_template", "You"),
    ],
)
def test_a_response_starts_as_it_does_behind_its_prompt(name: str, prompt_format: PromptFormat, start: str) -> None:
    made = family(name)
    encoded = encode_row(
        made, TURNS, ["You should"], prompt_format=prompt_format, max_length=200, max_prompt_length=150
    )
    tokens = made.convert_ids_to_tokens(encoded.response_ids[0])
    assert "".join(tokens).startswith(start)
    assert "".join(tokens).replace("\u2581", " ").replace("\u0120", " ").count(" ") == (
        2 if prompt_format == "hh" else 1
    )


def test_one_tokenizer_of_the_tests_would_merge_prompt_and_response() -> None:
    made = family("merges across")
    encoded = encode_row(made, TURNS, ["You should"], prompt_format="hh", max_length=200, max_prompt_length=150)
    together = made(hh_prompt(TURNS) + " You should", add_special_tokens=False)["input_ids"]
    apart = encoded.prompt_ids + encoded.response_ids[0][:-1]
    assert "".join(made.convert_ids_to_tokens(together)) == "".join(made.convert_ids_to_tokens(apart))
    assert together != apart


def test_text_that_follows_keeps_the_spaces_that_it_has() -> None:
    made = family("leading space")
    for text in ("a cat", " a cat", "  a cat"):
        assert "".join(made.convert_ids_to_tokens(following_ids(made, text, space_is_added=True))) == text.replace(
            " ", "\u2581"
        )


END = {
    "what the template says": (tiny.CHAT_TEMPLATE, "<|im_end|>"),
    "EOS behind a space, as in LLaMA 2": (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }} <eos>{% endif %}{% endfor %}",
        "<eos>",
    ),
    "EOS where the template says nothing": (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        "<eos>",
    ),
}


@pytest.mark.parametrize("case", END)
def test_a_response_in_a_chat_ends_as_an_assistant_turn_does(case: str) -> None:
    made = tiny.tokenizer()
    made.chat_template, end = END[case]
    encoded = encode_row(made, TURNS, ["a cat"], prompt_format="chat_template", max_length=200, max_prompt_length=150)
    ids = encoded.response_ids[0]
    assert made.convert_ids_to_tokens(ids[-1]) == end
    assert not set(ids[:-1]) & set(made.all_special_ids)


def test_a_response_of_the_plain_format_ends_in_the_eos_whatever_the_template_says() -> None:
    made = tiny.tokenizer(chat=True)
    assert response_frame(made, "hh") == (" ", made.eos_token_id)


def test_white_space_that_a_template_puts_before_an_answer_belongs_to_the_response() -> None:
    made = tiny.tokenizer()
    made.chat_template, _ = END["EOS behind a space, as in LLaMA 2"]
    encoded = encode_row(
        made, TURNS[:1], ["a cat"], prompt_format="chat_template", max_length=200, max_prompt_length=150
    )
    assert (
        made.decode(encoded.prompt_ids + encoded.response_ids[0]) == f"[INST] {TURNS[0]['content']} [/INST] a cat<eos>"
    )


def test_text_that_a_template_puts_before_an_answer_is_no_part_of_the_response() -> None:
    made = tiny.tokenizer(chat=True)
    made.chat_template = tiny.CHAT_TEMPLATE.replace(
        "{{ m['content'] }}", "{% if m['role'] == 'assistant' %}<think></think>{% endif %}{{ m['content'] }}"
    )
    assert response_frame(made, "chat_template")[0] == ""


def test_a_long_chat_loses_its_oldest_turns_and_keeps_its_system_message() -> None:
    made = tiny.tokenizer(chat=True)
    system = {"role": "system", "content": "it was 42"}
    whole, truncated = encode_prompt(made, [system, *TURNS], "chat_template", 1000)
    assert not truncated
    ids, truncated = encode_prompt(made, [system, *TURNS], "chat_template", len(whole) - 1)
    assert truncated
    assert made.decode(ids) == chat_text(made, [system, TURNS[2]], add_generation_prompt=True)


def test_a_last_turn_that_is_too_long_loses_its_oldest_tokens() -> None:
    made = tiny.tokenizer(chat=True)
    whole, _ = encode_prompt(made, TURNS[2:], "chat_template", 1000)
    assert encode_prompt(made, TURNS, "chat_template", 8) == (whole[-8:], True)


def test_a_template_with_a_bos_gives_one_and_truncation_keeps_it() -> None:
    made = with_bos()
    made.chat_template = "<bos>" + tiny.CHAT_TEMPLATE
    for limit in (1000, 8):
        ids, _ = encode_prompt(made, TURNS[:1], "chat_template", limit)
        assert ids[0] == made.bos_token_id
        assert ids.count(made.bos_token_id) == 1
        assert len(ids) <= limit


def test_a_tokenizer_without_an_end_is_refused() -> None:
    made = tiny.tokenizer()
    made.eos_token = None
    with pytest.raises(UserError, match="no EOS token"):
        encode_row(made, TURNS, ["a"], **LENGTHS)


def test_truncated_prompts_and_responses_are_counted() -> None:
    fits = encode_row(PLAIN, TURNS[:1], ["a", "b"], prompt_format="hh", max_length=900, max_prompt_length=800)
    assert (fits.truncated_prompt, fits.truncated_responses) == (False, 0)
    cut = encode_row(
        PLAIN, TURNS, ["a cat " * 20, "a", "b " * 50], prompt_format="hh", max_length=24, max_prompt_length=9
    )
    assert (cut.truncated_prompt, cut.truncated_responses) == (True, 2)


def test_a_missing_chat_template_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="no chat template"):
        encode_prompt(PLAIN, TURNS, "chat_template", 1000)


def test_lengths_that_leave_no_room_for_a_response_are_refused() -> None:
    with pytest.raises(UserError, match="must be smaller"):
        encode_row(PLAIN, TURNS, ["a"], prompt_format="hh", max_length=64, max_prompt_length=64)
