"""What is recorded of a judge's verdicts, whoever the tracker is."""

from pathlib import Path
from typing import Any

import pandas as pd

from clha_core.digest import file_digest
from clha_core.tracking.interface import Tracker

FOLDER = "judging"


def describe_judging(tracker: Tracker, verdicts: Path, figures: dict[str, Any]) -> None:
    """The win rates per subset as metrics, the verdicts as a table to look through, and both files."""
    prefix = f"judge/{verdicts.stem}"
    metrics = {f"{prefix}/{subset}/win_rate": m["win_rate"] for subset, m in figures["outcomes"].items()}
    metrics[f"{prefix}/length_controlled_win_rate"] = figures["length"]["length_controlled_win_rate"]
    tracker.log_metrics(metrics)
    table = pd.read_parquet(verdicts)
    columns = {str(name): table[name].astype(object).where(table[name].notna(), None).tolist() for name in table}
    tracker.log_table(columns, f"{FOLDER}/{verdicts.stem}-{file_digest(verdicts)[:8]}.json")
    for path in (verdicts, verdicts.with_suffix(".json")):
        tracker.log_artifact(path, FOLDER)
