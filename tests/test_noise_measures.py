"""What the noise report measures: contradicted labels, length bias, what a gap masks, flips found."""

import json
import math
import tracemalloc
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rescored import batch, pair, pairs, pairs_of, row

from clha_core.data.tables import SCHEMA
from clha_core.errors import UserError
from clha_core.losses.ranking import reward_gap_at_quantile, similar_pairs
from clha_core.params import SampleParams
from clha_core.rescoring.noise.gap import gap_curve, gap_figures, gap_table
from clha_core.rescoring.noise.measures import length_buckets
from clha_core.rescoring.noise.pairs import read_pairs
from clha_core.rescoring.noise.report import summarise
from clha_core.rescoring.noise.truth import Truth, detection_curve, detection_measures, sample_truth
from clha_core.sample.dialogues import label_truth

NO_ORIGINS = SCHEMA.append(pa.field("rewards", pa.list_(pa.float64())))
REWARDS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=20)


def labels(*rewards: tuple[float, float]) -> dict[str, float]:
    return summarise(pairs(*rewards))["labels"]["total"]


def test_a_label_is_contradicted_where_the_rejected_response_has_the_higher_reward() -> None:
    total = labels((2, 1), (1, 3), (0.5, 0.5), (4, 1))

    assert (total["pairs"], total["contradiction_rate"], total["tie_rate"]) == (4, 0.25, 0.25)
    assert total["difference_mean"] == pytest.approx((1 - 2 + 0 + 3) / 4)
    assert total["difference_std"] == pytest.approx(np.std([1, -2, 0, 3]), abs=1e-6)
    assert total["difference_size_q50"] == pytest.approx(1.5)


def test_the_interval_is_wilsons() -> None:
    n, p, z = 10, 0.3, 1.959964
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5

    total = labels(*[(0, 1)] * 3, *[(1, 0)] * 7)

    assert total["contradiction_rate_low"] == pytest.approx((centre - half) / (1 + z**2 / n), abs=1e-5)
    assert total["contradiction_rate_high"] == pytest.approx((centre + half) / (1 + z**2 / n), abs=1e-5)


def test_subsets_are_measured_apart() -> None:
    rows = [row(0, 1, 0, subset="helpful-base"), row(1, 0, 1, subset="harmless-base"), row(2, 2, 0)]

    assert {name: part["contradiction_rate"] for name, part in summarise(pairs_of(rows))["labels"].items()} == {
        "harmless-base": 1.0,
        "helpful-base": 0.0,
        "total": pytest.approx(1 / 3, abs=1e-6),
    }


@settings(max_examples=25)
@given(REWARDS)
def test_swapping_all_labels_turns_agreement_into_contradiction(rewards: list[tuple[int, int]]) -> None:
    total, swapped = labels(*rewards), labels(*[(b, a) for a, b in rewards])

    agreement = 1 - total["contradiction_rate"] - total["tie_rate"]
    assert swapped["contradiction_rate"] == pytest.approx(agreement, abs=1e-5)
    assert swapped["difference_mean"] == -total["difference_mean"]
    assert swapped["difference_size_q90"] == total["difference_size_q90"]


@settings(max_examples=25)
@given(REWARDS, st.integers(1, 20))
def test_the_size_of_the_batches_changes_nothing(rewards: list[tuple[int, int]], size: int) -> None:
    rows = [row(index, *both, subset=f"s{both[0] % 3}") for index, both in enumerate(rewards)]
    whole, batches = pairs_of(rows, len(rows)), pairs_of(rows, size)

    assert summarise(batches) == summarise(whole)
    assert batches.most_contradicted == whole.most_contradicted


def test_of_a_row_only_some_numbers_stay_in_memory() -> None:
    read = batch([row(index, index % 3, 1, response="long " * 2_000) for index in range(200)])

    def peak(batches: int) -> int:
        tracemalloc.start()
        pairs = read_pairs(repeat(read, batches))
        assert len(pairs.table) == 200 * batches
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)  # what is allocated once
    assert peak(60) - peak(10) < 50 * 200 * 200  # bytes a row


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "train split is empty"),
        ([row(0, 1, 0) | {"sources": ["chosen", "augmented", "augmented"]}], "Row row-0 has the candidates"),
        ([row(0, 1, 0), row(1, float("nan"), 0)], "not finite, first those of row 'row-1'"),
        (
            [row(0, 1, 0), row(1, 1, 0) | {"rewards": [1.0, 0.0, 2.0]}],
            "not ranked by reward, first those of row 'row-1'",
        ),
        ([row(0, 1, 0, subset="total")], "'total'"),
    ],
)
def test_unusable_tables_are_refused_with_the_reason(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pairs_of(rows)


def test_a_reward_model_that_likes_length_is_found_out() -> None:
    long, short = "a long answer, and more of it", "short"
    rows = [
        *[pair(index, 1.0 + index, chosen_text=long, rejected_text=short) for index in range(3)],
        *[pair(3 + index, -1.0 - index, chosen_text=short, rejected_text=long) for index in range(2)],
        pair(5, 0.5, chosen_text=short, rejected_text=long),
    ]
    total = summarise(pairs_of(rows))["labels"]["total"]

    assert total["longer_chosen_rate"] == 0.5
    assert total["longer_preferred_rate"] == pytest.approx(5 / 6, abs=1e-6)
    assert total["length_correlation"] > 0.8
    assert total["contradiction_rate_longer"] == 0
    assert total["contradiction_rate_shorter"] == pytest.approx(2 / 3, abs=1e-6)


def test_length_measures_that_are_undefined_are_left_out() -> None:
    total = summarise(pairs_of([pair(0, 1.0, response="same length")]))["labels"]["total"]

    assert not [name for name in total if "longer" in name or "shorter" in name or "length" in name]


def test_length_buckets_hold_every_pair_once_for_each_length() -> None:
    rows = [
        pair(i, (-1.0) ** i, chosen_text="x" * (i + 1), rejected_text="y" * (100 - i), prompt="p" * (i % 9 + 1))
        for i in range(100)
    ]
    buckets = length_buckets(pairs_of(rows).table)

    for name, group in buckets.groupby("length"):
        assert group["pairs"].sum() == 100, name
        assert (group["from"].iloc[1:].to_numpy() > group["to"].iloc[:-1].to_numpy()).all()
    longer = buckets[buckets["length"] == "Longer response"]
    assert (longer["from"].min(), longer["to"].max()) == (51, 100)
    assert set(longer["pairs"]) == {20}
    signed = buckets[buckets["length"] == "Chosen minus rejected"]
    assert (signed["from"].min(), signed["to"].max()) == (-99, 99)


def test_prompts_are_measured_with_all_their_turns() -> None:
    turns = [
        {"role": role, "content": text} for role, text in (("user", "four"), ("assistant", "€"), ("user", "six…56"))
    ]

    assert list(pairs_of([pair(0, 1.0) | {"prompt": turns}]).table["prompt_chars"]) == [11]


def test_every_kind_of_candidate_says_how_often_it_is_best() -> None:
    rows = [row(0, 1, 0), row(1, 0, 1), row(2, 5, 4), pair(3, 1.0)]
    rows[2] |= {"rewards": [9.0, 5.0, 4.0], "sources": ["augmented", "chosen", "rejected"]}

    assert summarise(read_pairs([batch(rows, NO_ORIGINS)]))["best"] == {
        "chosen": {"rows": 4, "best_rate": 0.5},
        "rejected": {"rows": 4, "best_rate": 0.25},
        "augmented": {"rows": 3, "best_rate": pytest.approx(1 / 3, abs=1e-6)},
    }


def test_augmented_candidates_are_told_apart_by_origin_where_the_data_names_them() -> None:
    schema = NO_ORIGINS.append(pa.field("origins", pa.list_(pa.string())))
    rows = [row(0, 1, 0), row(1, 1, 0)]
    rows[1] |= {"sources": ["augmented", "chosen", "rejected"], "origins": ["other", "data", "data"]}

    assert summarise(read_pairs([batch(rows, schema)]))["best"] == {
        "chosen": {"rows": 2, "best_rate": 0.5},
        "rejected": {"rows": 2, "best_rate": 0},
        "augmented, a-model": {"rows": 1, "best_rate": 0},
        "augmented, other": {"rows": 1, "best_rate": 1},
    }


@settings(max_examples=50)
@given(REWARDS, st.floats(0, 10))
def test_a_gap_masks_what_the_loss_masks(rewards: list[tuple[int, int]], gap: float) -> None:
    read = pairs(*rewards)
    ranked = torch.tensor([row(0, *both)["rewards"] for both in rewards])
    [figures] = gap_figures(read, np.array([gap])).to_dict("records")

    assert figures["masked"] == pytest.approx(similar_pairs(ranked, 1, gap).double().mean().item())
    assert figures["kept"] == sum(abs(a - b) > gap for a, b in rewards)
    left, contradicted = sum(b - a > gap for a, b in rewards), sum(b > a for a, b in rewards)
    for figure, part, whole in (
        ("contradictions_left", left, contradicted),
        ("contradicted_of_kept", left, figures["kept"]),
    ):
        assert figures[figure] == pytest.approx(part / whole) if whole else math.isnan(figures[figure])


@settings(max_examples=25)
@given(REWARDS)
def test_the_table_has_the_gaps_that_training_takes_from_a_quantile(rewards: list[tuple[int, int]]) -> None:
    ranked = torch.tensor([row(0, *both)["rewards"] for both in rewards])
    for figures in gap_table(pairs(*rewards)).to_dict("records")[1:]:
        assert figures["gap"] == pytest.approx(reward_gap_at_quantile(ranked, figures["quantile"]))


def test_the_curve_goes_from_nothing_to_everything_masked() -> None:
    curve = gap_curve(pairs((2, 1), (1, 3), (4, 1), (0, 5)))

    assert (curve["gap"].iloc[0], curve["masked"].iloc[0], curve["contradictions_left"].iloc[0]) == (0, 0, 1)
    assert (curve["gap"].iloc[-1], curve["masked"].iloc[-1], curve["kept"].iloc[-1]) == (5, 1, 0)
    assert curve["masked"].is_monotonic_increasing


def test_flips_found_are_counted_against_the_known_ones() -> None:
    found = pairs((0, 3), (0, 1), (2, 0), (3, 0)).table["difference"]
    measures = detection_measures(found, np.array([True, False, True, False]))

    assert measures == pytest.approx(
        {"rate": 0.5, "precision": 0.5, "recall": 0.5, "average_precision": (1 + 2 / 3) / 2, "roc_auc": 0.75}
    )


def test_the_detection_curve_holds_the_contradictions_at_the_threshold_just_below_zero() -> None:
    found = pairs((0, 3), (0, 1), (2, 0), (3, 0)).table["difference"]
    curve = detection_curve(found, np.array([True, False, True, False])).set_index("threshold")

    assert curve.index.tolist() == [3, 2, -1, -3]
    assert (curve.loc[-1, "precision"], curve.loc[-1, "recall"]) == (0.5, 0.5)
    assert (curve.loc[-3, "precision"], curve.loc[-3, "recall"]) == (1, 0.5)


def test_without_bad_labels_there_is_nothing_to_find() -> None:
    found, none = pairs((0, 3), (2, 0)).table["difference"], np.array([False, False])

    assert detection_measures(found, none) == {"rate": 0}
    assert detection_curve(found, none).empty


def test_the_truth_of_sample_rows_is_found_by_their_ids() -> None:
    params = SampleParams(train_pairs=40, test_pairs=2, candidates=2, label_noise=0.4, seed=3)
    known = list(label_truth(params, "train"))
    numbers = [31, 2, 17]
    truth = sample_truth((f"helpful/train/{number:06d}" for number in numbers), params)

    assert truth.flipped.tolist() == [known[number].flipped for number in numbers]
    assert truth.gold_difference.tolist() == [known[n].gold[0] - known[n].gold[1] for n in numbers]


def test_with_the_truth_the_gaps_say_how_much_trains_the_wrong_way_round() -> None:
    read = pairs((3, 0), (0, 2), (1, 0), (0, 4))
    truth = Truth(np.array([False] * 4), np.array([1.0, 1.0, -1.0, -1.0]))

    assert gap_figures(read, np.array([0.0, 1.0, 3.5]), truth)["wrong_of_kept"].tolist() == [0.5, 1 / 3, 0]


def test_the_summary_is_plain_json() -> None:
    truth = Truth(np.array([True, False]), np.array([-1.0, 1.0]))
    summary = summarise(pairs((2, 1), (1, 3)), truth)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert set(summary) == {"labels", "best", "gap", "flips", "wrong_labels"}
