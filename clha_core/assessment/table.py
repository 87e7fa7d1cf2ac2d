"""The results of an assessment on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clha_core.evaluation.summary import TOTAL
from clha_core.evaluation.table import NOTHING
from clha_core.judging.table import agreement_lines, kappa_text, outcome_row, outcome_table, with_interval


def print_results(results: dict[str, Any], console: Console) -> None:
    """Print what `assess()` returned: outcomes by rater and by majority, kappas, agreement with other judges."""
    console.print(_outcomes(results))
    for line in _remarks(results):
        console.print(Text(line), soft_wrap=True)


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
        weighted = kappa_text(pair["five_way_weighted"])
        kappas = f"{kappa_text(pair['three_way'])}, five labels with quadratic weights {weighted}"
        lines.append(f"Cohen's kappa, {' and '.join(pair['raters'])}, {pair['items']} items: {kappas}.")
    if fleiss := results["fleiss"]:
        value = NOTHING if fleiss["three_way"] is None else f"{fleiss['three_way']:.2f}"
        lines.append(f"Fleiss' kappa, {fleiss['raters']} raters, {fleiss['items']} items that all voted on: {value}.")
    return lines + agreement_lines(results["agreement"])
