"""A sequence has an exact boundary, at most one BOS and exactly one EOS per complete response."""

import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from clha_core.errors import UserError
from clha_core.tokenization import encode_prompt, encode_row, hh_prompt

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


def test_a_missing_chat_template_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="no chat template"):
        encode_prompt(PLAIN, TURNS, "chat_template", 1000)


def test_lengths_that_leave_no_room_for_a_response_are_refused() -> None:
    with pytest.raises(UserError, match="must be smaller"):
        encode_row(PLAIN, TURNS, ["a"], prompt_format="hh", max_length=64, max_prompt_length=64)
