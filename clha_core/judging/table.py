"""Wins, ties and losses on the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clha_core.evaluation.summary import TOTAL
from clha_core.evaluation.table import NOTHING

JUDGES = {"reward_model": "reward model", "judge": "judge", "gold": "gold reward"}


def outcome_row(name: str, measures: dict[str, float] | None) -> tuple[str, ...]:
    """Cells of a row: name, pairs, shares of wins, ties and losses, win rate with its interval."""
    if measures is None:
        return (name, "0", *[NOTHING] * 4)
    shares = (f"{100 * measures[outcome]:.1f} %" for outcome in ("win", "tie", "lose"))
    return (name, f"{measures['pairs']:.0f}", *shares, with_interval(measures, "win_rate"))


def outcome_table(title: str, first_column: str, rows: list[tuple[str, ...]]) -> Table:
    """A table of outcome_row()s."""
    table = Table(title=Text(title, style="table.title"), box=box.SIMPLE_HEAD, show_edge=False, collapse_padding=True)
    for place, column in enumerate((first_column, "Pairs", "Win", "Tie", "Lose", "Win rate")):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def with_interval(measures: dict[str, float], name: str) -> str:
    """A share and its interval, in percent."""
    value, low, high = (100 * measures[name + suffix] for suffix in ("", "_low", "_high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def kappa_text(value: dict[str, Any] | None) -> str:
    """A kappa and, where it has one, its interval; a dash where it is not defined."""
    if value is None:
        return NOTHING
    interval = "" if value["kappa_low"] is None else f" [{value['kappa_low']:.2f}, {value['kappa_high']:.2f}]"
    return f"{value['kappa']:.2f}{interval}"


def agreement_lines(agreement: dict[str, Any]) -> list[str]:
    """A sentence for every other judge that outcomes were compared with."""
    lines = []
    for name, figures in agreement.items():
        line = f"Agreement with the {JUDGES[name]}, {figures['pairs']} pairs: {with_interval(figures, 'agreement')}"
        if figures["decided"]:
            line += f"; on the {figures['decided']} without a tie {with_interval(figures, 'decided_agreement')}"
        lines.append(f"{line}; kappa {kappa_text(figures['kappa'])}.")
    return lines


def print_verdicts(figures: dict[str, Any], system: str, against: str, console: Console) -> None:
    """Print what summarise_verdicts() returned, and the usage if it has any."""
    outcomes = figures["outcomes"]
    rows = [outcome_row(name, measures) for name, measures in outcomes.items() if name != TOTAL]
    rows.append(outcome_row("All", outcomes[TOTAL]))
    by_length = figures["length"]["by_length"]
    rows += [outcome_row(f"  answer {name}", measures) for name, measures in by_length.items()]
    console.print(outcome_table(f"{system} against {against}, judged by {figures['judge']}", "Pairs", rows))
    for line in _remarks(figures):
        console.print(Text(line), soft_wrap=True)


def _remarks(figures: dict[str, Any]) -> list[str]:
    length = figures["length"]
    lines = [
        f"Length-controlled win rate: {with_interval(length, 'length_controlled_win_rate')} (mean lengths "
        f"{length['mean_length']:.0f} and {length['mean_other_length']:.0f} characters)."
    ]
    if length["longer_wins"]:
        lines.append(f"The longer answer wins in {with_interval(length['longer_wins'], 'share')} of the decided pairs.")
    if order := figures["order"]:
        line = f"Both orders agree in {with_interval(order, 'consistent')}, contradict each other in "
        line += with_interval(order, "contradictory")
        if order["prefers_a"]:
            line += f"; the first answer is preferred in {with_interval(order['prefers_a'], 'share')}"
        lines.append(f"{line}.")
    if figures["identical"]:
        lines.append(f"{figures['identical']} pairs of identical answers are ties.")
    if figures["without_verdict"]:
        errors = ", ".join(f"{count} {error}" for error, count in figures["errors"].items())
        lines.append(f"{figures['without_verdict']} pairs have no verdict and are not counted ({errors}).")
    lines += agreement_lines(figures["agreement"])
    if usage := figures.get("usage"):
        lines.append(
            f"{usage['prompt_tokens']} tokens in, {usage['completion_tokens']} out, cost {usage['cost']:.4f}; "
            f"{usage['cached']} of {usage['requests']} verdicts were kept from before."
        )
    return lines
