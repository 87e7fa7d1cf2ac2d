"""The noise report's page and tables."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rescored import pair, pairs, pairs_of, row

from clha_core.data.ingest import ingest
from clha_core.data.tables import read_rows, write_table
from clha_core.params import Params
from clha_core.rescoring.noise import figures
from clha_core.rescoring.noise.pairs import Pairs
from clha_core.rescoring.noise.report import report_noise, summarise, write_report
from clha_core.rescoring.noise.truth import Truth
from clha_core.rescoring.rescore import rank_candidates
from clha_core.sample.dialogues import label_truth

HOSTILE = '<script>alert(1)</script></script><img src=x onerror="alert(2)">'
TABLES = {"reward_differences.csv", "contradictions_by_length.csv", "gap_curve.csv"}


def report(data: Pairs, folder: Path, truth: Truth | None = None) -> str:
    """The page, written to `folder`."""
    write_report(data, summarise(data, truth), folder, truth)
    return (folder / "report.html").read_text(encoding="utf-8")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=20))
def test_the_histogram_counts_every_pair_and_separates_contradictions(rewards: list[tuple[float, float]]) -> None:
    histogram = figures.histogram(pairs(*rewards).table)

    assert list(histogram.columns) == ["subset", "bin", "count"]
    assert len(histogram) == figures.BINS
    assert histogram["count"].sum() == len(rewards)
    assert histogram["count"][: figures.BINS // 2].sum() == sum(chosen < rejected for chosen, rejected in rewards)


def test_the_report_lists_the_most_contradicted_pairs_first(tmp_path: Path) -> None:
    text = report(pairs(*[(0, 1 + index) for index in range(30)], (5, 0)), tmp_path)

    order = [text.find(f"Question {index}?") for index in (29, 28, 10)]
    assert 0 < order[0] < order[1] < order[2]
    assert text.count("<article") == 20
    assert "Question 9?" not in text
    assert "Question 30?" not in text


def test_hostile_data_stays_text(tmp_path: Path) -> None:
    hostile = row(0, 0, 1, subset=HOSTILE, prompt=HOSTILE, response=HOSTILE) | {"id": HOSTILE}
    text = report(pairs_of([hostile]), tmp_path)

    assert "<script" not in text
    assert "<img" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    text = report(pairs((2, 1), (1, 3)), tmp_path)
    assert not re.search(r"""<(script|link|img|iframe)|url\((?!#)|@import|(href|src)=["']http""", text)


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    data, truth = pairs((2, 1), (1, 3), (0.5, 0.5)), Truth(np.array([False, True, False]), np.array([1.0, -1.0, 1.0]))
    report(data, tmp_path / "a", truth)
    report(data, tmp_path / "b", truth)

    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).iterdir()}
        for name in ("a", "b")
    ]
    assert digests[0] == digests[1]
    assert set(digests[0]) == {"report.html", *TABLES, "detection.csv"}


def test_without_a_known_truth_nothing_is_said_of_flips(tmp_path: Path) -> None:
    text = report(pairs((2, 1), (1, 3)), tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"report.html", *TABLES}
    assert "Known bad labels" not in text
    assert "wrong_of_kept" not in pd.read_csv(tmp_path / "gap_curve.csv")


@pytest.mark.parametrize("rewards", [[(1, 1)], [(1, 0)], [(0, 1)], [(1, 1), (1, 1)]])
def test_a_report_of_one_pair_or_of_ties_alone_is_a_page_too(tmp_path: Path, rewards: list[tuple[int, int]]) -> None:
    rows = [pair(index, a - b, response="same") for index, (a, b) in enumerate(rewards)]
    text = report(pairs_of(rows), tmp_path, Truth(np.zeros(len(rows), bool), np.ones(len(rows))))
    assert not re.search(r"\bnan\b", text)


def test_on_the_sample_a_reward_model_that_knows_the_gold_reward_finds_the_flips(
    tmp_path: Path, make_params: Callable[..., Params]
) -> None:
    params = make_params({"sample.train_pairs": 400, "sample.test_pairs": 20, "data.validation_share": 0.1})
    ingest(params, tmp_path)
    rows = read_rows(tmp_path / "train.parquet")
    gold = [truth.gold for truth in label_truth(params.sample, "train")]
    rewards = [list(gold[int(one["id"].rsplit("/")[-1])]) for one in rows]
    write_table(rank_candidates(_with_origins(rows), rewards), tmp_path / "rescored.parquet")

    noise = report_noise(tmp_path / "rescored.parquet", tmp_path / "report", params.sample)

    assert noise["flips"]["rate"] == pytest.approx(params.sample.label_noise, abs=0.06)
    assert noise["flips"]["roc_auc"] > 0.85
    assert (noise["wrong_labels"]["precision"], noise["wrong_labels"]["recall"]) == (1, 1)
    assert noise["gap"]["q50"]["wrong_of_kept"] == 0
    assert "the labels that noise flipped are known" in (tmp_path / "report" / "report.html").read_text()
    assert set(pd.read_csv(tmp_path / "report" / "detection.csv")["bad"]) == {"flips", "wrong_labels"}


def _with_origins(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the rescore stage gets them, where rows say where their candidates are from."""
    return [one | {"origins": ["data"] * len(one["sources"])} for one in rows]
