"""A comparison for the terminal and as Markdown."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from clha_core.comparison.compare import Comparison
from clha_core.evaluation.summary import TOTAL
from clha_core.evaluation.table import NOTHING, markdown_table, reward_name, with_interval

COLUMNS = ("", "A", "B", "A - B")


def verdict(comparison: Comparison) -> str:
    """One sentence: whether the paired interval of the reward excludes zero."""
    total = comparison.metrics["A_vs_B"][TOTAL]
    difference = with_interval(total, "reward_difference")
    if total["reward_difference_low"] > 0:
        return f"A is better: reward {difference}."
    if total["reward_difference_high"] < 0:
        return f"B is better: reward {difference}."
    return f"Neither is shown to be better: reward {difference}."


def rows_of(comparison: Comparison) -> Iterator[tuple[str, list[list[str]]]]:
    """A heading and its rows, for every subset and at last for all of them."""
    metrics = comparison.metrics
    for subset in [*sorted(set(metrics["A"]) - {TOTAL}), TOTAL]:
        a, b, versus = metrics["A"][subset], metrics["B"][subset], metrics["A_vs_B"][subset]
        rows = []
        for name, measure in (("Gold reward", "gold"), (reward_name(metrics), "reward")):
            if f"{measure}_difference" in versus:
                difference = with_interval(versus, f"{measure}_difference")
                rows.append([name, with_interval(a, measure), with_interval(b, measure), difference])
        sigmoid = "reward_sigmoid_x100"
        rows.append(
            ["Sigmoid x 100", *(f"{m[sigmoid]:.1f}" for m in (a, b)), with_interval(versus, f"{sigmoid}_difference")]
        )
        won, tied, lost = (f"{100 * versus[name]:.1f} %" for name in ("win", "tie", "lose"))
        rows.append(["Better answer", won, lost, f"tie {tied}"])
        rows.append(["Win rate of A, a tie is half", with_interval(versus, "win_rate"), NOTHING, NOTHING])
        for name, measure in (("BLEU", "bleu"), ("Characters", "length_chars")):
            rows.append([name, *(f"{m[measure]:.1f}" for m in (a, b)), f"{a[measure] - b[measure]:+.1f}"])
        heading = "All subsets" if subset == TOTAL else subset
        yield f"{heading}, {int(a['prompts'])} prompts", rows


def comparison_table(comparison: Comparison) -> Table:
    """For the terminal."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, collapse_padding=True)
    for place, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if place == 0 else "right")
    for heading, rows in rows_of(comparison):
        table.add_row(Text(heading, style="bold"))
        for row in rows:
            table.add_row(*map(Text, row))  # Text, because rich reads [...] as markup
        table.add_section()
    return table


def comparison_markdown(comparison: Comparison) -> str:
    """Who is who, the verdict, and a table a subset."""
    parts = ["  \n".join(comparison.sentences()), f"**{verdict(comparison)}**"]
    for heading, rows in rows_of(comparison):
        parts.append(markdown_table([heading, *COLUMNS[1:]], rows))
    return "\n\n".join(parts)
