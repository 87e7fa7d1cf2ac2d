"""The evaluation's summary, tables and HTML report."""

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from clha_core.errors import UserError
from clha_core.evaluation.report import MAX_CARDS, write_report
from clha_core.evaluation.summary import headline, summarise, systems_of
from clha_core.evaluation.table import label, summary_markdown, summary_table
from clha_core.params import Params, load_params

SYSTEMS = ("base", "sft", "aligned")
HOSTILE = """<script>alert(1)</script></script><img src=x onerror="alert(2)">'"&amp; {{ 7 * 7 }} $\\frac$"""
CURVES = pd.DataFrame(
    {
        "step": [10, 20, 30, 40],
        "epoch": [0.1, 0.2, 0.3, 0.4],
        "loss": [3.0, 2.0, 1.5, 1.2],
        "eval_loss": [np.nan, 2.1, np.nan, 1.4],
        "rewards/margins": [0.1, 0.2, 0.3, 0.4],
    }
)


@pytest.fixture(scope="module")
def params() -> Params:
    params = load_params(Path(__file__).resolve().parents[1] / "params.yaml")
    params.evaluate.bootstrap_samples = 100
    return params


def answers(count: int = 12, *, gold: bool = True) -> pd.DataFrame:
    """Rows in which the aligned system beats SFT on even prompts by 2 and loses on odd ones by 1."""
    place = np.arange(count)
    rows = pd.DataFrame(
        {
            "id": [f"row-{i:04d}" for i in place],
            "subset": np.where(place % 3 == 0, "harmless-base", "helpful-base"),
            "prompt": [f"\n\nHuman: Question {i}?\n\nAssistant:" for i in place],
            "human_chosen": [f"The answer to question number {i} is well known." for i in place],
            "human_chosen_reward": place / 10,
        }
    )
    shift: dict[str, Any] = {"base": -1.0, "sft": 0.0, "aligned": np.where(place % 2 == 0, 2.0, -1.0)}
    for system in SYSTEMS:
        rows[f"{system}_response"] = [f"The answer to question number {i} is {system}." for i in place]
        rows[f"{system}_finished"] = place != 1
        rows[f"{system}_reward"] = place / 10 + shift[system]
        if gold:
            rows[f"{system}_gold"] = 2 * rows[f"{system}_reward"]
    return rows


class Page(HTMLParser):
    """What a browser makes of a page: elements, their attributes, and the text outside of script and style."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data if self.tags[-1:] not in (["script"], ["style"]) else ""


def report(rows: pd.DataFrame, params: Params, out: Path, curves: pd.DataFrame | None = CURVES) -> Path:
    return write_report(rows, summarise(rows, SYSTEMS, params.evaluate), curves, params, out)


# --- summary


def test_every_system_is_measured_on_every_subset_and_in_total(params: Params) -> None:
    summary = summarise(answers(), SYSTEMS, params.evaluate)

    sft = summary["sft"]
    assert set(sft) == {"harmless-base", "helpful-base", "total"}
    assert [sft[name]["prompts"] for name in ("harmless-base", "helpful-base", "total")] == [4, 8, 12]
    assert sft["total"]["reward"] == pytest.approx(0.55)
    assert sft["harmless-base"]["reward"] == pytest.approx(0.45)
    assert sft["total"]["gold"] == pytest.approx(1.1)
    assert sft["total"]["finished_share"] == pytest.approx(11 / 12, abs=1e-6)
    assert sft["total"]["length_chars"] == pytest.approx(39 + 2 / 12, abs=1e-6)
    assert 0 < sft["total"]["bleu"] < sft["total"]["character_bleu_reference"] < 100
    for name in ("reward", "gold"):
        assert sft["total"][f"{name}_low"] < sft["total"][name] < sft["total"][f"{name}_high"]


def test_a_total_is_the_sample_weighted_mean_of_the_subsets(params: Params) -> None:
    aligned = summarise(answers(), SYSTEMS, params.evaluate)["aligned"]

    for name in (
        "reward",
        "reward_sigmoid_x100",
        "character_bleu_reference",
        "finished_share",
        "length_chars",
    ):
        weighted = (4 * aligned["harmless-base"][name] + 8 * aligned["helpful-base"][name]) / 12
        assert aligned["total"][name] == pytest.approx(weighted, abs=2e-6), name


def test_systems_are_compared_prompt_by_prompt(params: Params) -> None:
    summary = summarise(answers(), SYSTEMS, params.evaluate)

    assert [name for name in summary if "_vs_" in name] == [
        "sft_vs_base",
        "aligned_vs_base",
        "aligned_vs_sft",
        "aligned_vs_human",
    ]
    versus = summary["aligned_vs_sft"]["total"]
    assert (versus["win"], versus["tie"], versus["lose"], versus["win_rate"]) == (0.5, 0, 0.5, 0.5)
    assert (versus["reward_difference"], versus["gold_difference"]) == (0.5, 1.0)
    assert versus["reward_difference_low"] < 0.5 < versus["reward_difference_high"]
    tied = summary["aligned_vs_base"]["total"]
    assert (tied["win"], tied["tie"], tied["lose"], tied["win_rate"]) == (0.5, 0.5, 0, 0.75)


def test_gold_is_left_out_where_there_is_none(params: Params) -> None:
    summary = summarise(answers(gold=False), SYSTEMS, params.evaluate)
    assert not [name for part in summary.values() for name in part["total"] if "gold" in name]


def test_a_summary_is_plain_json_with_six_digits_and_repeats(params: Params) -> None:
    summary = summarise(answers(), SYSTEMS, params.evaluate)

    numbers = [value for part in summary.values() for subset in part.values() for value in subset.values()]
    assert all(type(value) is float and value == round(value, 6) for value in numbers)
    assert json.dumps(summary) == json.dumps(summarise(answers(), SYSTEMS, params.evaluate))


def test_the_headline_has_totals_without_intervals_and_who_wins(params: Params) -> None:
    summary = summarise(answers(), SYSTEMS, params.evaluate)
    lines = headline(json.loads(json.dumps(summary, sort_keys=True)))
    assert list(lines) == list(SYSTEMS)
    assert lines["sft"] == {name: summary["sft"]["total"][name] for name in ("gold", "reward", "bleu")}
    assert lines["aligned"]["win_rate_vs_base"] == 0.75
    assert lines["aligned"]["win_rate_vs_sft"] == 0.5


def test_the_systems_come_back_in_order_from_a_file_with_sorted_keys(params: Params) -> None:
    summary = summarise(answers(), SYSTEMS, params.evaluate)
    stored = json.loads(json.dumps(summary | {"ranking": {"base": 0.5}, "gate": {"passed": True}}, sort_keys=True))
    assert systems_of(stored) == list(SYSTEMS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="sft_reward"), "lack the columns .*sft_reward"),
        (lambda rows: rows.iloc[:0], "no answer to evaluate"),
        (lambda rows: rows.assign(subset="total"), "'total'"),
        (lambda rows: rows.assign(sft_reward=[np.nan] + [0.0] * 11), "sft_reward .* 'row-0000'"),
        (lambda rows: rows.assign(base_gold=[0.0] * 11 + [np.inf]), "base_gold .* 'row-0011'"),
    ],
)
def test_unusable_rows_are_refused_with_the_reason(change: Any, message: str, params: Params) -> None:
    with pytest.raises(UserError, match=message):
        summarise(change(answers()), SYSTEMS, params.evaluate)


# --- tables


def test_the_terminal_table_fits_80_columns_and_shows_intervals(params: Params) -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(summary_table(summarise(answers(), SYSTEMS, params.evaluate), "clha"))

    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert "Evaluation on 12 test prompts" in text
    assert {line[0] for line in lines} >= {"System", "Base", "SFT", "CLHA", "Human"}
    assert next(line[1:4] for line in lines if line[0] == "SFT") == ["1.10", "0.55", "—"]
    assert "…" not in text
    assert "[" in text


def test_the_markdown_table_has_a_row_per_system(params: Params) -> None:
    markdown = summary_markdown(summarise(answers(gold=False), SYSTEMS, params.evaluate), "pro")

    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    assert header == ["System", "Evaluation reward", "Win rate vs SFT", "Win rate vs Base", "BLEU"]
    assert [row[0] for row in rows] == ["Base", "SFT", "PRO", "Human"]
    assert rows[2][2].startswith("50.0 % [")
    assert rows[0][2:4] == ["—", "—"]


def test_an_sft_run_is_told_from_the_sft_baseline() -> None:
    assert label("aligned", "sft") != label("sft", "sft")


# --- report


def test_the_report_shows_every_answer_with_its_outcome(params: Params, tmp_path: Path) -> None:
    page = Page(report(answers(), params, tmp_path))

    for i in range(12):
        assert f"Question {i}?" in page.text
        assert f"The answer to question number {i} is aligned." in page.text
    outcomes = [value for name, value in page.attributes if name == "data-outcome"]
    assert outcomes == ["win", "lose"] * 6
    assert page.text.count("cut off") == len(SYSTEMS)
    assert "train.margin" in page.text


def test_hostile_data_stays_text(params: Params, tmp_path: Path) -> None:
    rows = answers()
    texts = ["id", "subset", "prompt", "human_chosen", *(f"{system}_response" for system in SYSTEMS)]
    for column in texts:
        rows[column] = HOSTILE
    hostile_curves = CURVES.rename(columns={"rewards/margins": HOSTILE})
    params = params.model_copy(deep=True)
    params.policy.model = HOSTILE

    page = Page(report(rows, params, tmp_path, hostile_curves))

    assert page.tags.count("script") == 1, "the page's own"
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 12 * len(texts)


def test_the_report_loads_nothing(params: Params, tmp_path: Path) -> None:
    path = report(answers(), params, tmp_path)

    links = [value for name, value in Page(path).attributes if name in ("src", "href", "xlink:href")]
    assert links, "the plots refer to their own marks"
    assert all((link or "").startswith("#") for link in links)
    assert "url(http" not in path.read_text()
    assert "@import" not in path.read_text()


def test_equal_input_gives_equal_bytes(params: Params, tmp_path: Path) -> None:
    first = report(answers(), params, tmp_path / "a").read_bytes()
    assert first == report(answers(), params, tmp_path / "b").read_bytes()
    assert str(tmp_path).encode() not in first


@pytest.mark.parametrize(("curves", "plots"), [(None, 2), (CURVES, 4)])
def test_a_plot_per_reward_and_per_quantity_of_training(
    curves: pd.DataFrame | None, plots: int, params: Params, tmp_path: Path
) -> None:
    page = Page(report(answers(), params, tmp_path, curves))
    assert page.tags.count("svg") == plots
    assert ("rewards/margins" in page.text) == (curves is not None)


def test_plot_colours_follow_the_page(params: Params, tmp_path: Path) -> None:
    text = report(answers(), params, tmp_path).read_text()
    assert "var(--blue, #0072b2)" in text
    assert "prefers-color-scheme: dark" in text


def test_a_long_evaluation_says_how_many_answers_it_shows(params: Params, tmp_path: Path) -> None:
    page = Page(report(answers(MAX_CARDS + 100), params, tmp_path))

    assert page.tags.count("article") == MAX_CARDS
    assert f"{MAX_CARDS} of the {MAX_CARDS + 100} prompts" in page.text


def test_a_report_without_prompts_is_refused(params: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column prompt"):
        report(answers().drop(columns="prompt"), params, tmp_path)
