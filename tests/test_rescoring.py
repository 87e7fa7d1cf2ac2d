"""Input texts of reward models, the ranking by reward, and what cannot be rewards."""

import math

import pytest
import tiny

from clha_core.data.tables import RESCORED_SCHEMA
from clha_core.errors import UserError
from clha_core.rescoring.rescore import rank_candidates
from clha_core.scoring.checks import check_finite, check_scores
from clha_core.scoring.text_formats import reward_input_ids

PAD_IS_EOS = tiny.tokenizer(pad="<eos>", chat=True)
WITH_BOS = tiny.tokenizer(chat=True, bos="<bos>")
PAIRS = tiny.tokenizer(pairs=True)
ROWS = tiny.random_rows(12, n=3)
CAT = [{"role": "user", "content": "a cat"}]
LONG = [{"role": "user", "content": "a cat " * 50}]


def test_the_oasst_format_closes_every_turn_with_eos() -> None:
    ids = reward_input_ids(PAD_IS_EOS, CAT, "the mat", "oasst", 100)
    assert PAD_IS_EOS.decode(ids) == "<|prompter|>a cat<eos><|assistant|>the mat<eos>"


def test_a_marker_that_somebody_wrote_is_text() -> None:
    ids = reward_input_ids(PAD_IS_EOS, CAT, "<|prompter|>", "oasst", 100)
    assert ids.count(PAD_IS_EOS.convert_tokens_to_ids("<|prompter|>")) == 1


def test_a_tokenizer_without_the_markers_is_no_oasst_model() -> None:
    with pytest.raises(UserError, match=r"no token <\|prompter\|>"):
        reward_input_ids(tiny.sentencepiece_like_tokenizer(), CAT, "the mat", "oasst", 100)


def test_a_long_dialogue_loses_its_oldest_tokens() -> None:
    whole = reward_input_ids(PAD_IS_EOS, LONG, "the mat", "hh", 1000)
    assert reward_input_ids(PAD_IS_EOS, LONG, "the mat", "hh", 20) == whole[-20:]


@pytest.mark.parametrize("text_format", ["hh", "oasst", "chat_template"])
@pytest.mark.parametrize("max_length", [20, 1000])
def test_there_is_one_bos_also_before_a_text_that_was_cut(text_format: str, max_length: int) -> None:
    ids = reward_input_ids(WITH_BOS, LONG, "the mat", text_format, max_length)
    assert ids[0] == WITH_BOS.bos_token_id
    assert ids.count(WITH_BOS.bos_token_id) == 1
    assert len(ids) <= max_length


def test_a_bos_that_only_the_template_puts_is_kept() -> None:
    tokenizer = tiny.tokenizer(chat=True)
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    ids = reward_input_ids(tokenizer, LONG, "the mat", "chat_template", 20)
    assert (len(ids), ids[0], ids.count(ids[0])) == (20, tokenizer.bos_token_id, 1)


def test_a_sentence_pair_keeps_its_answer_and_special_tokens_when_cut() -> None:
    ids = reward_input_ids(PAIRS, LONG, "the mat", "question_answer", 30)
    assert len(ids) == 30
    text = PAIRS.decode(ids)
    assert text.startswith("[CLS]")
    assert text.endswith("Assistant:[SEP]the mat[SEP]")


def test_candidates_are_ranked_by_reward_with_their_sources() -> None:
    table = rank_candidates(ROWS[:1], [[0.1, 2.0, -1.0]])
    assert table.schema == RESCORED_SCHEMA
    (row,) = table.to_pylist()
    assert row["rewards"] == [2.0, 0.1, -1.0]
    assert row["sources"] == ["rejected", "chosen", "augmented"]
    assert row["responses"] == [ROWS[0]["responses"][i] for i in (1, 0, 2)]


def test_ties_keep_the_chosen_response_first() -> None:
    (row,) = rank_candidates(ROWS[:1], [[1.0, 1.0, 1.0]]).to_pylist()
    assert row["sources"] == ["chosen", "rejected", "augmented"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_rows_of_scores_that_are_not_finite_are_named(value: float) -> None:
    with pytest.raises(UserError, match=r"gave 2 of 3 rows scores that are not finite, first b, c: set"):
        check_finite([[0.0, 1.0], [value, 1.0], [2.0, value]], ["a", "b", "c"])


def test_only_the_first_rows_are_named() -> None:
    with pytest.raises(UserError, match=r"gave 9 of 9 rows .* first 0, 1, 2, 3, 4, \.\.\.:"):
        check_scores([[math.nan]] * 9, [str(at) for at in range(9)])


def test_one_score_for_all_texts_is_no_reward() -> None:
    with pytest.raises(UserError, match=r"every text the same score, 1.5 \(2 rows, first a, b\): check"):
        check_scores([[1.5, 1.5], [1.5, 1.5]], ["a", "b"])


def test_a_score_of_the_prompt_alone_is_no_reward() -> None:
    with pytest.raises(UserError, match="does not read the responses"):
        check_scores([[1.5, 1.5], [0.5, 0.5]], ["a", "b"])


def test_ties_in_some_rows_are_fine() -> None:
    check_scores([[1.5, 1.5], [0.5, 0.7]], ["a", "b"])
    check_scores([[1.5], [0.5]], ["a", "b"])
    check_scores([[1.5]], ["a"])
    check_scores([], [])
