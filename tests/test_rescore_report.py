"""What the report on reward rescoring says about human labels."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clha_core.errors import UserError
from clha_core.rescoring.report import BINS, rescore_summary, write_rescore_report

HOSTILE = '<script>alert(1)</script></script><img src=x onerror="alert(2)">'


def row(index: int, chosen: float, rejected: float, *, subset: str = "helpful-base", **texts: str) -> dict[str, Any]:
    """A rescored row with a third, augmented candidate that is always the worst."""
    ranked = sorted(
        [("chosen", chosen), ("rejected", rejected), ("augmented", min(chosen, rejected) - 1)],
        key=lambda candidate: -candidate[1],
    )
    return {
        "id": f"row-{index}",
        "subset": subset,
        "prompt": [{"role": "user", "content": texts.get("prompt", f"Question {index}?")}],
        "sources": [source for source, _ in ranked],
        "rewards": [reward for _, reward in ranked],
        "responses": [texts.get("response", f"{source} answer {index}") for source, _ in ranked],
    }


def table(*rewards: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame([row(index, *pair) for index, pair in enumerate(rewards)])


def test_a_label_is_contradicted_where_the_rejected_response_has_the_higher_reward() -> None:
    total = rescore_summary(table((2, 1), (1, 3), (0.5, 0.5), (4, 1)))["total"]

    assert (total["pairs"], total["contradiction_rate"], total["tie_rate"]) == (4, 0.25, 0.25)
    assert total["difference_mean"] == pytest.approx((1 - 2 + 0 + 3) / 4)
    assert total["difference_std"] == pytest.approx(np.std([1, -2, 0, 3]), abs=1e-6)
    assert total["difference_size_q50"] == pytest.approx(1.5)


def test_the_interval_is_wilsons() -> None:
    n, p, z = 10, 0.3, 1.959964
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5

    total = rescore_summary(table(*[(0, 1)] * 3, *[(1, 0)] * 7))["total"]

    assert total["contradiction_rate_low"] == pytest.approx((centre - half) / (1 + z**2 / n), abs=1e-5)
    assert total["contradiction_rate_high"] == pytest.approx((centre + half) / (1 + z**2 / n), abs=1e-5)


def test_subsets_are_measured_apart() -> None:
    rows = [row(0, 1, 0, subset="helpful-base"), row(1, 0, 1, subset="harmless-base"), row(2, 2, 0)]

    summary = rescore_summary(pd.DataFrame(rows))

    assert {name: part["contradiction_rate"] for name, part in summary.items()} == {
        "harmless-base": 1.0,
        "helpful-base": 0.0,
        "total": pytest.approx(1 / 3, abs=1e-6),
    }


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=20))
def test_swapping_all_labels_turns_agreement_into_contradiction(rewards: list[tuple[int, int]]) -> None:
    total = rescore_summary(table(*rewards))["total"]
    swapped = rescore_summary(table(*[(b, a) for a, b in rewards]))["total"]

    agreement = 1 - total["contradiction_rate"] - total["tie_rate"]
    assert swapped["contradiction_rate"] == pytest.approx(agreement, abs=1e-5)
    assert swapped["difference_mean"] == -total["difference_mean"]
    assert swapped["difference_size_q90"] == total["difference_size_q90"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "train split is empty"),
        ([row(0, 1, 0) | {"sources": ["chosen", "augmented", "augmented"]}], "Row row-0 has the candidates"),
        ([row(0, float("nan"), 0)], "not finite"),
        ([row(0, 1, 0, subset="total")], "'total'"),
    ],
)
def test_unusable_tables_are_refused_with_the_reason(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rescore_summary(pd.DataFrame(rows))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=20))
def test_the_histogram_counts_every_pair_and_separates_contradictions(
    tmp_path_factory: pytest.TempPathFactory, rewards: list[tuple[float, float]]
) -> None:
    out = tmp_path_factory.mktemp("rescore")
    write_rescore_report(table(*rewards), out)

    histogram = pd.read_csv(out / "reward_differences.csv")
    assert list(histogram.columns) == ["subset", "bin", "count"]
    assert len(histogram) == BINS
    assert histogram["count"].sum() == len(rewards)
    assert histogram["count"][: BINS // 2].sum() == sum(chosen < rejected for chosen, rejected in rewards)


def test_the_report_lists_the_most_contradicted_pairs_first(tmp_path: Path) -> None:
    write_rescore_report(table(*[(0, 1 + index) for index in range(30)], (5, 0)), tmp_path)

    text = (tmp_path / "report.html").read_text()
    order = [text.find(f"Question {index}?") for index in (29, 28, 10)]
    assert 0 < order[0] < order[1] < order[2]
    assert text.count("<article") == 20
    assert "Question 9?" not in text
    assert "Question 30?" not in text


def test_hostile_data_stays_text(tmp_path: Path) -> None:
    hostile = row(0, 0, 1, subset=HOSTILE, prompt=HOSTILE, response=HOSTILE) | {"id": HOSTILE}
    write_rescore_report(pd.DataFrame([hostile]), tmp_path)

    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    data = table((2, 1), (1, 3), (0.5, 0.5))
    write_rescore_report(data, tmp_path / "a")
    write_rescore_report(data, tmp_path / "b")

    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).iterdir()}
        for name in ("a", "b")
    ]
    assert digests[0] == digests[1]
    assert set(digests[0]) == {"report.html", "reward_differences.csv"}


def test_the_summary_is_plain_json() -> None:
    summary = rescore_summary(table((2, 1), (1, 3)))
    assert json.loads(json.dumps(summary)) == summary
