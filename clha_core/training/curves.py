"""Every log line of a training goes to the tracker at once and to a CSV that DVC plots and versions."""

from pathlib import Path
from typing import Any

import pandas as pd
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from clha_core.tracking.interface import Tracker

# Figures of the clock, not of the training: they would make equal runs differ byte by byte.
TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "total_flos", "tokens_per_second")


class TrackingCallback(TrainerCallback):
    """Forwards the Trainer's log lines to a tracker, under the Trainer's names."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        numbers = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if state.is_world_process_zero and numbers:
            self.tracker.log_metrics(numbers, step=state.global_step)


class EvaluateLast(TrainerCallback):
    """Looks at validation after the last step too, so that it may be the best checkpoint."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        return control


def curve_table(log_history: list[dict[str, float]]) -> pd.DataFrame:
    """One row per step with all that was logged at it; clock figures are left out."""
    rows: dict[int, dict[str, float]] = {}
    for entry in log_history:
        if "train_runtime" in entry:  # the summary line at the end
            continue
        kept = {name: value for name, value in entry.items() if not name.endswith(TIMINGS)}
        rows.setdefault(int(entry["step"]), {}).update(kept)
    frame = pd.DataFrame([rows[step] for step in sorted(rows)])
    first = ["step", "epoch"]
    return frame[first + sorted(column for column in frame.columns if column not in first)]


def write_curves(log_history: list[dict[str, float]], out: Path) -> None:
    """The curve table as CSV."""
    out.parent.mkdir(parents=True, exist_ok=True)
    curve_table(log_history).to_csv(out, index=False)
