"""A comparison for the terminal and as Markdown."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from clha_core.comparison.compare import Comparison
from clha_core.evaluation.summary import HUMAN, TOTAL
from clha_core.evaluation.table import NOTHING, markdown_table, reward_name, with_interval
from clha_core.markdown import as_text

COLUMNS = ("", "A", "B", "A - B")


def verdict(comparison: Comparison) -> str:
    """One sentence: whether the paired interval of the reward excludes zero."""
    total = comparison.metrics["A_vs_B"][TOTAL]
    difference = _difference(total, "reward", 3)
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
        for name, measure, digits in (
            ("Gold reward", "gold", 3),
            (reward_name(metrics), "reward", 3),
            ("Sigmoid x 100", "reward_sigmoid_x100", 1),
        ):
            if f"{measure}_difference" in versus:
                rows.append([name, *(f"{m[measure]:.{digits}f}" for m in (a, b)), _difference(versus, measure, digits)])
        won, tied, lost = (f"{100 * versus[name]:.1f} %" for name in ("win", "tie", "lose"))
        rows.append(["Better answer", won, lost, f"tie {tied}"])
        rows.append(["Win rate of A", NOTHING, NOTHING, with_interval(versus, "win_rate")])
        for name, measure in (("BLEU", "bleu"), ("Characters", "length_chars")):
            if measure != "bleu" or HUMAN not in (comparison.a.system, comparison.b.system):  # it is the reference
                rows.append([name, *(f"{m[measure]:.1f}" for m in (a, b)), f"{a[measure] - b[measure]:+.1f}"])
        heading = "All subsets" if subset == TOTAL else subset
        yield f"{heading} ({int(a['prompts'])})", rows


def _difference(versus: dict[str, float], measure: str, digits: int) -> str:
    mean, low, high = (
        f"{round(versus[f'{measure}_difference{bound}'], digits) + 0.0:+.{digits}f}" for bound in ("", "_low", "_high")
    )
    return f"{mean} [{low}, {high}]"


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
    parts = ["  \n".join(map(as_text, comparison.sentences())), f"**{as_text(verdict(comparison))}**"]
    for heading, rows in rows_of(comparison):
        parts.append(markdown_table([heading, *COLUMNS[1:]], rows))
    return "\n\n".join(parts)
