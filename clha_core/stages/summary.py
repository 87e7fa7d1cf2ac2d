"""The end of a run on the terminal: the table, and where to look next."""

import json
from pathlib import Path

from rich.console import Console

from clha_core import paths
from clha_core.errors import UserError
from clha_core.evaluation.table import summary_table
from clha_core.params import Params


def print_summary(params: Params, console: Console, root: Path = Path()) -> None:
    """Print what models/aligned is worth.

    Raises:
        UserError: nothing was evaluated yet.
    """
    metrics = root / paths.EVALUATE_METRICS
    if not metrics.exists():
        raise UserError("there is nothing to summarise: run `dvc repro` (or `dvc pull`) first.")
    console.print(summary_table(json.loads(metrics.read_text(encoding="utf-8")), params.train.method))
    console.print(
        f"Look next: {paths.EVALUATION / 'report.html'} (answers side by side), "
        f"{paths.RESCORE_REPORT / 'report.html'} (label noise), {paths.DATA_DOCS / 'index.html'} (data quality),\n"
        "`make mlflow` (runs and registry), `make ui` (start runs from Prefect), `dvc metrics diff` after a change.",
        highlight=False,
        soft_wrap=True,
    )
