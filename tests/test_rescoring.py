"""Scores equal a straightforward computation, one text at a time, for every architecture that presets name."""

import pytest
import tiny
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from clha_core.data.tables import RESCORED_SCHEMA
from clha_core.errors import UserError
from clha_core.rescoring.rescore import rank_candidates, rate_candidates
from clha_core.rescoring.score import score_sequences
from clha_core.rescoring.text_formats import reward_input_ids

SEPARATE_PAD = tiny.tokenizer(chat=True)
PAD_IS_EOS = tiny.tokenizer(pad="<eos>", chat=True)
PAIRS = tiny.tokenizer(pairs=True)
ROWS = tiny.random_rows(12, n=3)

MODELS = [
    pytest.param(tiny.llama_reward, "hh", SEPARATE_PAD, id="llama"),
    pytest.param(tiny.llama_reward, "hh", PAD_IS_EOS, id="llama, pad is eos"),
    pytest.param(tiny.qwen2_reward, "chat_template", PAD_IS_EOS, id="qwen2, chat template"),
    pytest.param(tiny.gpt_neox_reward, "oasst", PAD_IS_EOS, id="gpt-neox reward model"),
    pytest.param(tiny.deberta_reward, "question_answer", PAIRS, id="deberta-v3, sentence pair"),
]


def score_alone(model: PreTrainedModel, ids: list[int]) -> float:
    """No batch, no padding: the last position is the last real token."""
    model.config.pad_token_id = -1  # no id is padding
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits.item()


@pytest.mark.parametrize(("make", "text_format", "tokenizer"), MODELS)
def test_batched_scores_equal_scores_one_at_a_time(
    make: type, text_format: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make(tokenizer)
    rated = rate_candidates(
        ROWS, model, tokenizer, text_format=text_format, max_length=80, batch_size=5, description="test"
    )
    for row, rewards in zip(ROWS, rated, strict=True):
        for response, reward in zip(row["responses"], rewards, strict=True):
            ids = reward_input_ids(tokenizer, row["prompt"], response, text_format, 80)
            assert reward == pytest.approx(score_alone(model, ids), abs=1e-5)


def test_the_oasst_format_closes_every_turn_with_eos() -> None:
    prompt = [{"role": "user", "content": "a cat"}]
    ids = reward_input_ids(PAD_IS_EOS, prompt, "the mat", "oasst", 100)
    assert PAD_IS_EOS.decode(ids) == "<|prompter|>a cat<eos><|assistant|>the mat<eos>"


def test_a_long_dialogue_loses_its_oldest_tokens() -> None:
    prompt = [{"role": "user", "content": "a cat " * 50}]
    whole = reward_input_ids(PAD_IS_EOS, prompt, "the mat", "hh", 1000)
    assert reward_input_ids(PAD_IS_EOS, prompt, "the mat", "hh", 20) == whole[-20:]


def test_a_sentence_pair_keeps_its_answer_and_special_tokens_when_cut() -> None:
    prompt = [{"role": "user", "content": "a cat " * 50}]
    ids = reward_input_ids(PAIRS, prompt, "the mat", "question_answer", 30)
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


@pytest.mark.parametrize(("value", "sentence"), [(float("nan"), "not finite"), (0.0, "the same score")])
def test_scores_that_cannot_be_rewards_stop_with_a_sentence(value: float, sentence: str) -> None:
    model = tiny.llama_reward(SEPARATE_PAD)
    torch.nn.init.constant_(model.score.weight, value)
    with pytest.raises(UserError, match=sentence):
        score_sequences(model, [[5, 6], [7, 8, 9]], pad_token_id=0, eos_token_id=1, batch_size=2)
