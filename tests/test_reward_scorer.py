"""Scores do not depend on how rows are batched, and models that trees do not fit are scored another way."""

import copy
import logging
import random
from collections.abc import Callable

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from benchmarks.measure import cpu_peak
from clha_core.errors import UserError
from clha_core.scoring.score import RewardScorer, cut_by_length
from clha_core.scoring.score_trees import score_trees, shared_length, tokens

Rows = list[list[list[int]]]
PAD = 0  # of the models of 64 tokens; 1 is the EOS


def rows_of(count: int, n: int, seed: int = 0, longest: int = 12) -> Rows:
    """Rows of `n` candidates that share a prompt and end with the EOS."""
    rng = random.Random(seed)

    def ids() -> list[int]:
        return [rng.randrange(2, 64) for _ in range(rng.randint(1, longest))]

    return [[prompt + ids() + [1] for _ in range(n)] for prompt in (ids() for _ in range(count))]


def one_at_a_time(model: PreTrainedModel, rows: Rows) -> list[list[float]]:
    """By the body's last hidden state; by the model's own forward where its head reads more than that."""
    model = copy.deepcopy(model).eval()
    model.config.pad_token_id = -1  # no token is padding

    def score(ids: list[int]) -> float:
        return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits.item()

    with torch.no_grad():
        return [[score(ids) for ids in row] for row in rows]


def scorer(model: PreTrainedModel, budget: int = 60, pad: int | None = PAD) -> RewardScorer:
    return RewardScorer(model.eval(), pad_token_id=pad, tokens_per_batch=budget, max_length=100)


def assert_equal(found: list[list[float]], expected: list[list[float]]) -> None:
    flat = [[value for row in rows for value in row] for rows in (found, expected)]
    assert list(map(len, found)) == list(map(len, expected))
    torch.testing.assert_close(torch.tensor(flat[0]), torch.tensor(flat[1]), atol=1e-5, rtol=1e-5)


# Made once: what hypothesis tries are rows and budgets.
MODELS = {name: tiny.reward_model(name) for name in ("llama", "qwen3", "gpt_neox_reward_model")}
SCORERS = {name: scorer(copy.deepcopy(model)) for name, model in MODELS.items()}
SEQUENCES = st.lists(st.lists(st.integers(0, 63), min_size=1, max_size=12), min_size=1, max_size=4)


@given(rows=st.lists(SEQUENCES, min_size=1, max_size=6), budget=st.integers(8, 120), name=st.sampled_from(list(MODELS)))
@settings(max_examples=40)
def test_a_score_is_that_of_the_text_alone_in_any_batch(rows: Rows, budget: int, name: str) -> None:
    SCORERS[name]._tokens_per_batch = budget
    assert_equal(SCORERS[name].score(rows), one_at_a_time(MODELS[name], rows))


@given(st.lists(SEQUENCES, min_size=1, max_size=5), st.integers(8, 120))
@settings(max_examples=25)
def test_so_it_is_with_padding_and_without_a_token_left_for_it(rows: Rows, budget: int) -> None:
    padded = SCORERS["llama"]
    plain = copy.copy(padded)
    plain.trees, plain._tokens_per_batch = False, budget
    expected = one_at_a_time(MODELS["llama"], rows)
    assert_equal(plain.score(rows), expected)
    assert_equal(plain.score([*rows, [list(range(64)), [5]]])[:-1], expected)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gemma", "phi3"])
def test_decoders_share_prompts_and_give_the_scores_of_texts_alone(architecture: str) -> None:
    model, rows = tiny.reward_model(architecture), rows_of(8, n=3)
    expected = one_at_a_time(model, rows)
    subject = scorer(model)
    assert subject.trees
    assert_equal(subject.score(rows), expected)


def test_a_gpt_neox_without_parallel_residual_is_right_too() -> None:
    model, rows = tiny.reward_model("gpt_neox_reward_model", use_parallel_residual=False), rows_of(8, n=3)
    expected = one_at_a_time(model, rows)
    assert_equal(scorer(model).score(rows), expected)


def gemma2() -> PreTrainedModel:
    return tiny.reward_model("gemma2")


def mean_pooling() -> PreTrainedModel:
    return tiny.reward_model("gpt_neox_reward_model", pooling="mean")


def short_window() -> PreTrainedModel:
    return tiny.reward_model("mistral", sliding_window=10)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (gemma2, "softcap"),
        (mean_pooling, "GPTNeoXRewardModel gives other scores on packed trees"),
        (short_window, "attends to 10 tokens at most"),
    ],
)
def test_a_model_that_trees_do_not_fit_is_padded_and_says_why(
    make: Callable[[], PreTrainedModel], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, rows = make(), rows_of(8, n=2)
    expected = one_at_a_time(model, rows)
    with caplog.at_level(logging.WARNING):
        subject = scorer(model)
    assert not subject.trees
    assert reason in caplog.text
    assert_equal(subject.score(rows), expected)


def test_trees_that_a_window_does_not_reach_over_are_taken_apart() -> None:
    model, rows = tiny.reward_model("mistral", sliding_window=30), rows_of(10, n=3)
    assert max(len(ids) for row in rows for ids in row) <= 30 < max(len(row[0]) + len(row[1]) for row in rows)
    expected = one_at_a_time(model, rows)
    subject = RewardScorer(model.eval(), pad_token_id=PAD, tokens_per_batch=100, max_length=30)
    assert subject.trees
    assert_equal(subject.score(rows), expected)


def test_the_score_is_read_at_the_last_token_where_padding_is_the_eos() -> None:
    model, rows = tiny.reward_model("llama", pad_token_id=1), rows_of(6, n=2)
    expected = one_at_a_time(model, rows)
    for trees in (True, False):
        subject = scorer(model, pad=1)
        subject.trees = trees
        assert_equal(subject.score(rows), expected)


def test_the_shared_part_is_computed_once_and_no_batch_is_above_the_budget() -> None:
    model, rows = tiny.reward_model("llama"), [[[*range(2, 42), token, 1] for token in (50, 51, 52)]] * 10
    subject = scorer(model, budget=100)
    computed: list[int] = []
    model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: computed.append(inputs[0].numel()))
    subject.score(rows)
    assert computed == [2 * (40 + 3 * 2)] * 5


def test_more_than_one_logit_is_refused() -> None:
    model = tiny.reward_model("llama", num_labels=2)
    with pytest.raises(UserError, match=r"gives \(2, 2\) logits for 2 texts"):
        scorer(model).score(rows_of(1, n=2))


def test_memory_is_that_of_a_batch_whatever_the_number_of_rows() -> None:
    subject = scorer(tiny.reward_model("llama"), budget=200)
    few, many = (rows_of(count, n=2) for count in (20, 200))
    subject.score(few)
    peaks = [cpu_peak(lambda rows=rows: subject.score(rows)) for rows in (few, many)]
    assert peaks[1] < 1.3 * peaks[0]


def test_what_all_begin_with_is_shared_and_each_keeps_a_token() -> None:
    assert shared_length([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert shared_length([[1, 2, 3], [1, 2, 3]]) == 2
    assert shared_length([[1, 2], [1, 2, 3]]) == 1
    assert shared_length([[1], [2]]) == 0


def test_sharing_that_saves_nothing_is_left() -> None:
    few = [[2, *range(10, 40)], [2, *range(20, 50)]]  # cut on the left, they have a BOS in common
    assert [tokens(tree) for tree in score_trees(few)] == [31, 31]
    assert [tokens(tree) for tree in score_trees([[*range(30), 1], [*range(30), 2]])] == [32]


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 80), st.booleans())
def test_batches_hold_every_item_once_within_the_budget(lengths: list[int], budget: int, padded: bool) -> None:
    batches = list(cut_by_length(lengths, budget, padded=padded))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[index] for index in batch]
        assert len(batch) == 1 or (len(batch) * max(sizes) if padded else sum(sizes)) <= budget
    assert [index for batch in batches for index in batch] == sorted(
        range(len(lengths)), key=lambda i: (-lengths[i], i)
    )
