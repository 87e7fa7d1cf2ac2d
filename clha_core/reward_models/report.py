"""The reward models as one HTML page: do they predict labels that they have not seen, and do they know how well?"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from clha_core.reporting import plots
from clha_core.reporting.page import write_page
from clha_core.reward_models.quality import label_quality, reliability

MODELS = {"reward": "Rescoring", "eval_reward": "Evaluation"}
LABELS = {"validation": "Validation", "unseen_train": "Train, unseen"}
CURVES = ("loss", "accuracy", "margin", "mean_reward", "min_reward", "max_reward", "grad_norm", "learning_rate")
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.GREY)


def write_reward_report(
    differences: Mapping[tuple[str, str], NDArray[np.float64]],
    curves: Mapping[str, pd.DataFrame],
    temperatures: Mapping[str, list[float]],
    out_dir: Path,
) -> None:
    """Write report.html, reliability.csv and curves.csv to `out_dir`.

    Args:
        differences: by model (a key of MODELS) and labels (a key of LABELS), reward of the chosen minus reward of the
            rejected response.
        curves: by trained model, a row per log line: step and TRL's figures.
        temperatures: by model, those of its folds.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    tables = {key: reliability(difference) for key, difference in differences.items()}
    frames = [table.assign(model=model, labels=labels) for (model, labels), table in tables.items()]
    _write_csv(pd.concat(frames), ["model", "labels"], out_dir / "reliability.csv")
    logs = [table.assign(model=model) for model, table in curves.items()]
    _write_csv(pd.concat(logs) if logs else pd.DataFrame(columns=["model", "step"]), ["model"], out_dir / "curves.csv")
    write_page(
        "reward_models/report.html.j2",
        out_dir / "report.html",
        title="Reward models",
        rows=[
            (MODELS[model], LABELS[labels], label_quality(difference))
            for (model, labels), difference in differences.items()
        ],
        temperatures=[
            (MODELS[model], ", ".join(f"{value:.2f}" for value in values))
            for model, values in temperatures.items()
            if values
        ],
        reliability_plots=[
            (f"{MODELS[model]}: {LABELS[labels].lower()}", _reliability_plot(table))
            for (model, labels), table in tables.items()
        ],
        curve_plots=list(_curve_plots(curves)),
        swatches=[(plots.CSS_VARIABLES[_colour(number)], model) for number, model in enumerate(curves)],
    )


def _write_csv(table: pd.DataFrame, first: list[str], out: Path) -> None:
    columns = first + [column for column in table.columns if column not in first]
    table[columns].to_csv(out, index=False, lineterminator="\n")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _reliability_plot(table: pd.DataFrame) -> Markup:
    """Accuracy over confidence with its interval, above the number of pairs; on the diagonal, a model is calibrated."""
    figure, (axis, counts) = plots.new_figure(4.6, 3.4, rows=2)
    axis.plot([0.5, 1.0], [0.5, 1.0], color=plots.GREY, linewidth=1, linestyle="--")
    spread = [table["accuracy"] - table["accuracy_low"], table["accuracy_high"] - table["accuracy"]]
    axis.errorbar(
        table["confidence"], table["accuracy"], yerr=np.array(spread), color=plots.BLUE, marker="o", markersize=4
    )
    axis.set_ylabel("chosen, share")
    counts.bar(table["bin"], table["pairs"], width=0.045, color=plots.BLUE)
    counts.set_ylabel("pairs")
    counts.set_xlabel("confidence in the better rated response")
    counts.set_xlim(0.48, 1.02)
    return plots.svg(figure, "Reliability: accuracy and number of pairs by confidence")


def _curve_plots(curves: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Markup]]:
    for quantity in CURVES:
        shown = {name: table for name, table in curves.items() if quantity in table}
        if shown:
            figure, (axis,) = plots.new_figure(4.6, 2.2)
            for number, (name, table) in enumerate(curves.items()):
                if name in shown:
                    axis.plot(table["step"], table[quantity], color=_colour(number))
            yield quantity, plots.svg(figure, f"{quantity} over the optimizer steps")
