"""The results of an assessment on the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clha_core.evaluation.summary import TOTAL
from clha_core.evaluation.table import NOTHING

AGREES_WITH = {"reward_model": "reward model", "judge": "judge", "gold": "gold reward"}


def print_results(results: dict[str, Any], console: Console) -> None:
    """Print what `assess()` returned: outcomes by rater and by majority, kappas, agreement with other judges."""
    console.print(_outcomes(results))
    for line in _remarks(results):
        console.print(Text(line), soft_wrap=True)


def outcome_row(name: str, measures: dict[str, float] | None) -> tuple[str, ...]:
    """Cells of a row: name, pairs, shares of wins, ties and losses, win rate with its interval."""
    if measures is None:
        return (name, "0", *[NOTHING] * 4)
    shares = (f"{100 * measures[outcome]:.1f} %" for outcome in ("win", "tie", "lose"))
    return (name, f"{measures['pairs']:.0f}", *shares, with_interval(measures, "win_rate"))


def outcome_table(title: str, first_column: str, rows: list[tuple[str, ...]]) -> Table:
    """A table of outcome_row()s."""
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, collapse_padding=True)
    for place, column in enumerate((first_column, "Pairs", "Win", "Tie", "Lose", "Win rate")):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def with_interval(measures: dict[str, float], name: str) -> str:
    """A share and its interval, in percent."""
    value, low, high = (100 * measures[name + suffix] for suffix in ("", "_low", "_high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def _outcomes(results: dict[str, Any]) -> Table:
    rows = [outcome_row(rater, figures["outcomes"]) for rater, figures in results["raters"].items()]
    majority = results["majority"]
    if len(results["raters"]) > 1:
        rows.append(outcome_row("Majority", majority[TOTAL]))
    if len(majority) > 2:
        rows += [outcome_row(f"  {subset}", measures) for subset, measures in majority.items() if subset != TOTAL]
    if results["identical"]:
        rows.append(outcome_row("With identical answers", results["with_identical"]))
    return outcome_table(f"{results['system']} against {results['against']}", "Rater", rows)


def _remarks(results: dict[str, Any]) -> list[str]:
    lines = []
    for rater, figures in results["raters"].items():
        counts = [f"{figures[name]} {name}" for name in ("skipped", "missing", "repeated") if figures[name]]
        if figures["prefers_a"]:
            counts.append(f"prefers A in {with_interval(figures['prefers_a'], 'share')}")
        if counts:
            lines.append(f"{rater}: {', '.join(counts)}.")
    if results["without_majority"]:
        lines.append(f"{results['without_majority']} items without a majority count as ties.")
    for pair in results["cohen"]:
        kappas = f"{_kappa(pair['three_way'])}, five labels with quadratic weights {_kappa(pair['five_way_weighted'])}"
        lines.append(f"Cohen's kappa, {' and '.join(pair['raters'])}, {pair['items']} items: {kappas}.")
    if fleiss := results["fleiss"]:
        value = NOTHING if fleiss["three_way"] is None else f"{fleiss['three_way']:.2f}"
        lines.append(f"Fleiss' kappa, {fleiss['raters']} raters, {fleiss['items']} items that all voted on: {value}.")
    for name, figures in results["agreement"].items():
        line = (
            f"Agreement with the {AGREES_WITH[name]}, {figures['pairs']} items: {with_interval(figures, 'agreement')}"
        )
        if figures["decided"]:
            line += f"; on the {figures['decided']} without a tie {with_interval(figures, 'decided_agreement')}"
        lines.append(f"{line}; kappa {_kappa(figures['kappa'])}.")
    return lines


def _kappa(value: dict[str, float] | None) -> str:
    return NOTHING if value is None else f"{value['kappa']:.2f} [{value['kappa_low']:.2f}, {value['kappa_high']:.2f}]"
