"""The headline table of an evaluation, for the terminal and as Markdown."""

from typing import Any

from rich.table import Table

from clha_core.evaluation.summary import HUMAN, TOTAL, systems_of

NOTHING = "–"


def label(system: str, method: str) -> str:
    """What readers see for a system; the aligned one goes by the name of its method."""
    aligned = "SFT (aligned stage)" if method == "sft" else method.upper()
    return {"base": "Base", "sft": "SFT", "aligned": aligned, HUMAN: "Human (chosen)"}.get(system, system)


def headline(metrics: dict[str, Any], method: str) -> tuple[list[str], list[list[str]]]:
    """Column names and formatted rows: gold reward (where there is one), reward, win rates, BLEU."""
    systems = systems_of(metrics)
    with_gold = "gold" in metrics[systems[0]][TOTAL]
    baselines = list(reversed(systems[:-1]))
    columns = ["System", *(["Gold reward"] if with_gold else []), "Evaluation reward"]
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
    mean, low, high = (measures[name + suffix] for suffix in ("", "_low", "_high"))
    if name == "win_rate":
        return f"{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def summary_table(metrics: dict[str, Any], method: str) -> Table:
    """The headline for the terminal. `metrics` is what summarise() returns, `method` is train.method."""
    columns, rows = headline(metrics, method)
    prompts = int(metrics[systems_of(metrics)[0]][TOTAL]["prompts"])
    table = Table(title=f"Evaluation on {prompts} test prompts")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))  # else rich reads an interval as markup
    return table


def summary_markdown(metrics: dict[str, Any], method: str) -> str:
    """The headline as a Markdown table. `metrics` is what summarise() returns, `method` is train.method."""
    columns, rows = headline(metrics, method)
    rule = [":--", *(["--:"] * (len(columns) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rule, *rows]) + "\n"
