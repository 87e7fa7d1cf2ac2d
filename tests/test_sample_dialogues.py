"""The sample's preference data: HH layout, reproducible, comparable across noise levels, no leak into test."""

import os
import re
import subprocess
import sys
from itertools import islice
from typing import Any

import pytest

from clha_core.params import SampleParams
from clha_core.sample.dialogues import generate_rows, label_truth
from clha_core.sample.gold import gold_reward
from clha_core.sample.prompts import Split
from clha_core.sample.questions import (
    FOLLOW_UP,
    Request,
    UnsafeRequest,
    held_out_wording,
    parse_prompt,
    question,
    self_contained_wordings,
)
from clha_core.sample.sentences import SENTENCES, split_sentences

Turns = list[dict[str, str]]
SPLITS: list[Split] = ["train", "test"]


def sample_params(**changes: Any) -> SampleParams:
    values = {"train_pairs": 1500, "test_pairs": 300, "candidates": 2, "label_noise": 0.2, "seed": 7}
    return SampleParams(**(values | changes))


def turns_of(dialogue: str) -> Turns:
    """Read HH text by its own rule: every turn opens with a blank line and the speaker's name."""
    parts = re.split(r"\n\n(Human|Assistant): ", dialogue)
    assert parts[0] == ""
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[parts[i]], "content": parts[i + 1]} for i in range(1, len(parts), 2)]


def prompt_of(dialogue: str) -> str:
    return dialogue[: dialogue.rindex("\n\nAssistant: ")]


def last_wording(turns: Turns) -> tuple[Request, int]:
    """The request and the wording of the last user turn of a prompt."""
    request, text = parse_prompt(turns), turns[-1]["content"]
    matches = [w for w in self_contained_wordings(request) if text.endswith(question(request, w))]
    return request, matches[0] if matches else FOLLOW_UP


def dialogues_of(row: dict[str, Any]) -> list[str]:
    return [row["chosen"], row["rejected"], *row.get("augmented", [])]


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_hh_dialogues_that_differ_in_the_last_turn_only(split: Split) -> None:
    for row in generate_rows(sample_params(candidates=4), split):
        assert list(row) == ["chosen", "rejected", "subset", "augmented"]
        dialogues = dialogues_of(row)
        assert len(set(dialogues)) == 4
        assert len({prompt_of(dialogue) for dialogue in dialogues}) == 1
        assert [turns_of(dialogue)[-1]["role"] for dialogue in dialogues] == ["assistant"] * 4


def test_pairs_have_no_augmented_responses() -> None:
    assert list(next(generate_rows(sample_params(candidates=2), "train"))) == ["chosen", "rejected", "subset"]


def test_number_of_rows_is_the_one_asked_for() -> None:
    params = sample_params(train_pairs=70, test_pairs=30)
    assert [len(list(generate_rows(params, split))) for split in SPLITS] == [70, 30]


@pytest.mark.parametrize("split", SPLITS)
def test_subset_is_harmless_for_unsafe_requests_only(split: Split) -> None:
    rows = list(generate_rows(sample_params(), split))
    for row in rows:
        unsafe = isinstance(parse_prompt(turns_of(row["chosen"])[:-1]), UnsafeRequest)
        assert row["subset"] == ("harmless" if unsafe else "helpful")
    assert {row["subset"] for row in rows} == {"harmless", "helpful"}


@pytest.mark.parametrize("split", SPLITS)
def test_no_row_repeats_a_pair_of_dialogues(split: Split) -> None:
    rows = list(generate_rows(sample_params(train_pairs=8000, test_pairs=2000), split))
    assert len({frozenset((row["chosen"], row["rejected"])) for row in rows}) == len(rows)


@pytest.mark.parametrize("split", SPLITS)
def test_every_response_consists_of_sentences_known_to_the_gold_table(split: Split) -> None:
    for row in generate_rows(sample_params(candidates=3), split):
        for dialogue in dialogues_of(row):
            responses = [turn["content"] for turn in turns_of(dialogue) if turn["role"] == "assistant"]
            unknown = [s for response in responses for s in split_sentences(response) if s not in SENTENCES]
            assert unknown == []


@pytest.mark.parametrize("split", SPLITS)
def test_truth_is_the_gold_reward_of_the_text(split: Split) -> None:
    params = sample_params(candidates=3, train_pairs=300)
    for row, truth in zip(generate_rows(params, split), label_truth(params, split), strict=True):
        all_turns = [turns_of(dialogue) for dialogue in dialogues_of(row)]
        assert truth.gold == tuple(gold_reward(turns[:-1], turns[-1]["content"]) for turns in all_turns)


@pytest.mark.parametrize("split", SPLITS)
def test_same_parameters_give_the_same_rows(split: Split) -> None:
    params = sample_params(candidates=3)
    assert list(generate_rows(params, split)) == list(generate_rows(params, split))


def test_rows_do_not_depend_on_the_hash_seed_of_python() -> None:
    script = (
        "from clha_core.params import SampleParams\n"
        "from clha_core.sample.dialogues import generate_rows\n"
        "params = SampleParams(train_pairs=50, test_pairs=1, candidates=3, label_noise=0.2, seed=7)\n"
        "print(list(generate_rows(params, 'train')))"
    )
    outputs = {
        subprocess.check_output([sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_other_seed_gives_other_rows() -> None:
    rows = [{row["chosen"] for row in generate_rows(sample_params(seed=seed), "test")} for seed in (1, 2)]
    assert len(rows[0] & rows[1]) < 0.2 * len(rows[0])


def test_noise_flips_labels_and_changes_nothing_else() -> None:
    clean, noisy = (sample_params(label_noise=noise, candidates=3) for noise in (0.0, 0.4))
    rows = zip(generate_rows(clean, "train"), generate_rows(noisy, "train"), strict=True)
    for (before, after), truth in zip(rows, label_truth(noisy, "train"), strict=True):
        if truth.flipped:
            before["chosen"], before["rejected"] = before["rejected"], before["chosen"]
        assert before == after


def test_more_noise_keeps_the_flips_of_less_noise() -> None:
    low, high = (
        {i for i, truth in enumerate(label_truth(sample_params(label_noise=noise), "train")) if truth.flipped}
        for noise in (0.2, 0.4)
    )
    assert low < high


def test_test_split_depends_on_neither_noise_nor_the_size_of_train() -> None:
    plain = list(generate_rows(sample_params(label_noise=0.0, train_pairs=10), "test"))
    assert plain == list(generate_rows(sample_params(label_noise=1.0, train_pairs=20), "test"))
    assert not any(truth.flipped for truth in label_truth(sample_params(label_noise=1.0), "test"))


@pytest.mark.parametrize("split", SPLITS)
def test_more_candidates_only_add_augmented_responses(split: Split) -> None:
    two, four = (list(generate_rows(sample_params(candidates=n), split)) for n in (2, 4))
    for row in four:
        del row["augmented"]
    assert two == four


def test_larger_sample_begins_with_the_smaller_one() -> None:
    small = list(generate_rows(sample_params(train_pairs=100), "train"))
    assert small == list(islice(generate_rows(sample_params(train_pairs=200), "train"), 100))


# Bounds: six standard errors of a share near .7 over 8,000 rows are .031.
@pytest.mark.parametrize(("noise", "accuracy"), [(0.0, 0.83), (0.2, 0.70), (0.4, 0.56)])
def test_share_of_labels_that_agree_with_the_gold_reward(noise: float, accuracy: float) -> None:
    golds = [truth.gold for truth in label_truth(sample_params(train_pairs=8000, label_noise=noise), "train")]
    decided = [chosen > rejected for chosen, rejected in golds if chosen != rejected]
    assert len(decided) > 0.9 * len(golds)
    assert sum(decided) / len(decided) == pytest.approx(accuracy, abs=0.03)


def test_full_noise_flips_every_label_and_no_noise_none() -> None:
    assert all(truth.flipped for truth in label_truth(sample_params(label_noise=1.0), "train"))
    assert not any(truth.flipped for truth in label_truth(sample_params(label_noise=0.0), "train"))


def test_length_does_not_give_the_label_away() -> None:
    rows = list(generate_rows(sample_params(train_pairs=4000, label_noise=0.0), "train"))
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in rows) / len(rows)
    assert 0.4 < longer < 0.6


class TestHeldOut:
    """Test asks in combinations of request and wording that train has nowhere."""

    @pytest.fixture(scope="class")
    @staticmethod
    def prompts() -> dict[Split, list[Turns]]:
        params = sample_params(train_pairs=8000, test_pairs=1000)
        return {split: [turns_of(row["chosen"])[:-1] for row in generate_rows(params, split)] for split in SPLITS}

    def test_no_prompt_is_in_both_splits(self, prompts: dict[Split, list[Turns]]) -> None:
        train, test = ({str(turns) for turns in prompts[split]} for split in SPLITS)
        assert train.isdisjoint(test)

    def test_no_combination_of_test_is_in_any_turn_of_train(self, prompts: dict[Split, list[Turns]]) -> None:
        train = {last_wording(turns[: end + 1]) for turns in prompts["train"] for end in range(0, len(turns), 2)}
        test = {last_wording(turns) for turns in prompts["test"]}
        assert train.isdisjoint(test)
        assert test == {(request, held_out_wording(request)) for request, _ in test}

    def test_earlier_turns_of_test_are_combinations_of_train(self, prompts: dict[Split, list[Turns]]) -> None:
        earlier = [last_wording(turns[:1]) for turns in prompts["test"] if len(turns) > 1]
        assert earlier
        assert all(wording != held_out_wording(request) for request, wording in earlier)

    def test_everything_asked_in_test_is_asked_in_train_in_two_other_wordings_or_more(
        self, prompts: dict[Split, list[Turns]]
    ) -> None:
        wordings: dict[Request, set[int]] = {}
        for turns in prompts["train"]:
            request, wording = last_wording(turns)
            wordings.setdefault(request, set()).add(wording)
        for turns in prompts["test"]:
            assert len(wordings[parse_prompt(turns)]) >= 2

    def test_both_splits_have_the_same_mix_of_requests(self, prompts: dict[Split, list[Turns]]) -> None:
        for kind in {type(parse_prompt(turns)) for turns in prompts["train"]}:
            shares = [
                sum(isinstance(parse_prompt(turns), kind) for turns in prompts[split]) / len(prompts[split])
                for split in SPLITS
            ]
            assert shares[0] == pytest.approx(shares[1], abs=0.06)

    def test_hundreds_of_different_prompts(self, prompts: dict[Split, list[Turns]]) -> None:
        assert len({str(turns) for turns in prompts["train"]}) > 3000
        assert len({str(turns) for turns in prompts["test"]}) > 500
