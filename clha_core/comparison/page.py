"""A comparison as one HTML page with the answers side by side."""

from pathlib import Path

from clha_core.comparison.compare import Comparison
from clha_core.comparison.table import verdict
from clha_core.evaluation.report import write_comparison
from clha_core.params import EvaluateParams


def comparison_page(comparison: Comparison, params: EvaluateParams, out: Path) -> Path:
    """The evaluation report's page, of these two: every prompt with both answers, to search and to sort by gain."""
    return write_comparison(
        comparison.table,
        comparison.metrics,
        [*comparison.sentences(), verdict(comparison)],
        int(comparison.a.evaluation.protocol["max_new_tokens"]),
        params,
        out,
    )
