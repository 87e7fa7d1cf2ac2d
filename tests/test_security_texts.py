"""Texts of raters, models and registries are shown as they are; terminals, Markdown and sheets obey none of them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from answers import AGAINST, SYSTEM, generations, write_generations
from markdown_it import MarkdownIt
from mlflow.entities.model_registry import ModelVersion
from test_compare import evaluation
from test_evaluation_report import answers
from typer.testing import CliRunner

from clha_core.addresses import public_address, without_secrets
from clha_core.assessment.blind import blind
from clha_core.assessment.key import Key, KeyItem, write_key
from clha_core.assessment.sheet import write_sheet
from clha_core.cli import app
from clha_core.comparison.compare import Side, compare
from clha_core.comparison.table import comparison_markdown
from clha_core.errors import UserError
from clha_core.evaluation.table import markdown_table
from clha_core.judging.pairs import read_pairs
from clha_core.markdown import as_text, link
from clha_core.params import Params
from clha_core.terminal import say, terminal
from clha_core.tracking import operations
from clha_core.tracking.version_page import describe
from flows.progress import LineReader

# Colours, the window's name, the clipboard, the cursor, C1's own escape, a text shown backwards.
ESCAPES = (
    "\x1b[31m",
    "\x1b]0;owned\x07",
    "\x1b]52;c;cm0=\x07",
    "\x1b[2J\x1b[H",
    "\x9b31m",
    "\u202egnp.exe",
    "\r",
    "\b",
)
HOSTILE_TERMINAL = "Ana [bold red]x[/] [link=http://evil]y[/link] " + "".join(ESCAPES)
HOSTILE_MARKDOWN = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> ![x](http://evil/pixel) [x](javascript:alert(1)) [a][b] "
    "| x | `code` **b** _i_ ~~s~~ <http://evil> \\[x](http://evil)\n\n# heading\n\n[b]: http://evil\n```\nfence"
)


def controls(text: str) -> set[str]:
    return {sign for sign in text if not sign.isprintable() and sign not in "\n\t"}


# --- the terminal


def test_a_console_shows_control_characters_and_obeys_none() -> None:
    console = terminal()
    console.file = io.StringIO()
    say(console, HOSTILE_TERMINAL)
    console.print(HOSTILE_TERMINAL, markup=False)
    printed = console.file.getvalue()
    assert controls(printed) == set()
    assert printed.count("[bold red]x[/] [link=http://evil]y[/link]") == 2
    assert "\N{SYMBOL FOR ESCAPE}[31m" in printed


def test_colours_of_our_own_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = terminal()
    console.file = io.StringIO()
    console.print("[bold red]error:[/] \x1b[32m")
    assert console.file.getvalue().count("\x1b[") == console.file.getvalue().count("m") - 1 > 0


def test_the_name_of_a_rater_gives_the_terminal_no_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [KeyItem(id=f"r{n}", subset="s", pair=str(n), item=f"00{n}", a="aligned") for n in range(1, 4)]
    write_key(
        Key(export="x", system="aligned", against="sft", seed=1, items=items, identical=[]), tmp_path / "key.json"
    )
    votes = [{"item": item.item, "vote": "A better", "comment": HOSTILE_TERMINAL} for item in items]
    file = tmp_path / "votes.json"
    content = {"format": "clha-votes", "export": "x", "rater": HOSTILE_TERMINAL, "votes": votes}
    file.write_text(json.dumps(content), encoding="utf-8")
    command = ["assess", "import", str(file), "--key", str(tmp_path / "key.json"), "--out", str(tmp_path / "out.json")]
    monkeypatch.chdir(Path(__file__).parents[1])
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert "[bold red]x[/]" in result.output
    assert controls(result.output) == set()


def test_what_a_stage_prints_gives_the_terminal_of_a_worker_no_orders() -> None:
    lines = list(LineReader().feed(f"{HOSTILE_TERMINAL} end\n".encode(), final=True))
    assert lines
    assert set().union(*map(controls, lines)) == set()


# --- Markdown


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)


def harmful(html: str) -> list[str]:
    tags = ("<script", "<img", "<a ", "<h1", "<code", "<em", "<strong", "<s>", "<pre")
    return [tag for tag in tags if tag in html]


@pytest.mark.parametrize("place", ["{}", "words {}", "| a | {} |\n|---|---|\n| {} | b |", "- {}"])
def test_a_text_in_markdown_is_text(place: str) -> None:
    html = rendered(place.replace("{}", as_text(HOSTILE_MARKDOWN)))
    assert harmful(html) == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "![x](http://evil/pixel)" in html


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "http://a)b", "https://a b", "http://a\n", ""]
)
def test_an_address_that_is_none_makes_no_link(url: str) -> None:
    assert harmful(rendered(link("words", url))) == []


def test_the_words_of_a_link_lead_nowhere_else() -> None:
    html = rendered(link("x](http://evil) [y", "https://good/run"))
    assert 'http://evil"' not in html
    assert html.count("<a ") == 1
    assert 'href="https://good/run"' in html


def test_a_table_of_hostile_cells_has_the_columns_it_has() -> None:
    html = rendered(markdown_table([HOSTILE_MARKDOWN, "b"], [[HOSTILE_MARKDOWN, HOSTILE_MARKDOWN]] * 2))
    assert harmful(html) == []
    assert (html.count("<th "), html.count("<td ")) == (2, 4)


def test_a_comparison_with_an_evaluation_of_somebody_is_text(make_params: Callable[..., Params]) -> None:
    table = answers()
    table["subset"] = HOSTILE_MARKDOWN
    params = make_params({"evaluate.bootstrap_samples": 100}).evaluate
    sides = [Side(evaluation(f"{HOSTILE_MARKDOWN} {n}", table)) for n in range(2)]
    html = rendered(comparison_markdown(compare(*sides, params)))
    assert set(harmful(html)) == {"<strong"}  # the verdict, which is ours
    assert html.count("<strong") == 1


def hostile_run() -> Any:
    """What an MLflow server says of a run, every word of it hostile."""
    names = ("mlflow.source.git.commit", "mlflow.source.git.repoURL", "prefect.flow_run_id")
    tags = dict.fromkeys(names, HOSTILE_MARKDOWN)
    tags |= {"prefect.flow_run_url": "javascript:alert(1)", "dvc.md5.models/aligned": "0; touch pwned"}
    return SimpleNamespace(
        info=SimpleNamespace(run_name=HOSTILE_MARKDOWN, run_id="0123456789abcdef", experiment_id="1"),
        data=SimpleNamespace(tags=tags),
        inputs=SimpleNamespace(dataset_inputs=[]),
    )


def test_the_page_of_a_version_shows_what_others_wrote_as_text_and_no_command_of_theirs() -> None:
    facts = dict.fromkeys(("gate.reason", "promoted.at", "promoted.by", "promoted.why"), HOSTILE_MARKDOWN)
    tags = facts | {"promoted.flow_run_url": "javascript:alert(1)"}
    version = ModelVersion("name", "1", 0, tags=[], run_id="1")
    version._tags = tags
    page = describe(version, hostile_run())
    html = rendered(page)
    assert set(harmful(html)) == {"<a "}
    assert html.count("<a ") == 1
    assert 'href="#/experiments/1/runs/0123456789abcdef"' in html
    assert "touch pwned" not in page


def test_a_quote_does_not_leave_mlflows_filter(make_params: Callable[..., Params], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="quote"):
        operations._model_name(make_params(), "x' OR name LIKE '%")
    with pytest.raises(UserError, match="model_name"):
        make_params({"registry.model_name": "x' OR name LIKE '%"})


# --- sheets and addresses


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t=", "\r=", "\n=", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_cell_of_a_sheet_is_a_formula(tmp_path: Path, sign: str) -> None:
    rows = generations(2)
    rows["prompt"] = f"{sign}HYPERLINK(1)"
    rows[f"{SYSTEM}_response"] = f"{sign}1+cmd|'/C calc'!A0"
    shown, _ = blind(read_pairs(write_generations(rows, tmp_path), SYSTEM, AGAINST), SYSTEM, AGAINST, seed=1)
    write_sheet(shown, tmp_path / "sheet.csv")
    with (tmp_path / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell and not (cell[0].isalnum() or cell[0] == "'")]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ana:pw-1234@host:8443/v1?key=sk-1234", "https://host:8443/v1"),
        ("postgresql://ana:p%40w@db/mlflow", "postgresql://db/mlflow"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert public_address(url) == shown


def test_an_error_of_a_library_loses_the_password_of_the_address() -> None:
    url = "https://ana:pw-1234@host/mlflow"
    assert without_secrets(f"request to {url}/api failed", url) == "request to https://host/mlflow/api failed"
