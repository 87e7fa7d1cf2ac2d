"""The headline table of an evaluation, for the terminal and as Markdown."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from clha_core.evaluation.summary import HUMAN, TOTAL, is_marked, systems_of
from clha_core.markdown import as_text

NOTHING = "—"


def label(system: str, method: str) -> str:
    """What readers see for a system; the aligned one goes by the name of its method."""
    aligned = "SFT (aligned stage)" if method == "sft" else method.upper()
    return {"base": "Base", "sft": "SFT", "aligned": aligned, HUMAN: "Human"}.get(system, system)


def reward_name(metrics: dict[str, Any]) -> str:
    """What readers see for the reward: whether its judge has taught the policy."""
    return "Training reward" if is_marked(metrics) else "Evaluation reward"


def headline(metrics: dict[str, Any], method: str) -> tuple[list[str], list[list[str]]]:
    """Column names and formatted rows: gold reward (where there is one), reward, win rates, BLEU."""
    systems = systems_of(metrics)
    with_gold = "gold" in metrics[systems[0]][TOTAL]
    baselines = list(reversed(systems[:-1]))
    columns = ["System", *(["Gold reward"] if with_gold else []), reward_name(metrics)]
    columns += [f"Win rate vs {label(baseline, method)}" for baseline in baselines] + ["BLEU"]

    rows = []
    for system in [*systems, HUMAN]:
        total = metrics[system][TOTAL]
        row = [label(system, method)]
        for name in ["gold", "reward"] if with_gold else ["reward"]:
            row.append(with_interval(total, name) if name in total else NOTHING)
        for baseline in baselines:
            comparison = metrics.get(f"{system}_vs_{baseline}")
            row.append(with_interval(comparison[TOTAL], "win_rate") if comparison else NOTHING)
        row.append(f"{total['bleu']:.1f}" if "bleu" in total else NOTHING)
        rows.append(row)
    return columns, rows


def with_interval(measures: dict[str, float], name: str) -> str:
    """A measure and its interval: shares in percent, everything else with two decimals."""
    scale, digits = (100, 1) if name == "win_rate" else (1, 2)
    # Adding zero turns a rounded -0.0 into 0.0.
    mean, low, high = (
        f"{round(scale * measures[name + suffix], digits) + 0.0:.{digits}f}" for suffix in ("", "_low", "_high")
    )
    return f"{mean}{' %' if name == 'win_rate' else ''} [{low}, {high}]"


def summary_table(metrics: dict[str, Any], method: str) -> Table:
    """The headline for the terminal. `metrics` is what summarise() returns, `method` is train.method."""
    columns, rows = headline(metrics, method)
    prompts = int(metrics[systems_of(metrics)[0]][TOTAL]["prompts"])
    table = Table(
        title=f"Evaluation on {prompts} test prompts",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        collapse_padding=True,
    )
    for place, column in enumerate(columns):
        table.add_column(column.replace(" ", "\n", 1), justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows:
        # An interval under its mean keeps the table within 80 columns; Text, because rich reads [...] as markup.
        table.add_row(*(Text(cell.replace(" [", "\n[")) for cell in row))
    return table


def summary_markdown(metrics: dict[str, Any], method: str) -> str:
    """The headline as a Markdown table. `metrics` is what summarise() returns, `method` is train.method."""
    return markdown_table(*headline(metrics, method))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown, the first column to the left and all others to the right; every cell is text."""
    rule = [":--", *(["--:"] * (len(columns) - 1))]
    cells = [[as_text(cell) for cell in row] for row in [columns, *rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [cells[0], rule, *cells[1:]]) + "\n"
