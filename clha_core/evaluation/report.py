"""The evaluation as one HTML file that opens anywhere, offline."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from clha_core.errors import UserError
from clha_core.evaluation.summary import (
    HUMAN,
    TOTAL,
    gold_column,
    is_marked,
    response_column,
    reward_column,
    systems_of,
)
from clha_core.evaluation.table import NOTHING, headline, label, reward_name, with_interval
from clha_core.params import EvaluateParams, Params, flatten
from clha_core.reporting import plots
from clha_core.reporting.page import write_page

# What dvc.yaml names as parameters of the stage: others would be printed but not be kept up to date.
SECTIONS = {"policy", "sft", "train", "evaluate"}
MAX_CARDS = 500  # prompts shown side by side: some megabytes, which phones still open quickly
SCRIPT = "evaluation/report.js"
COLOURS = (plots.GREY, plots.ORANGE, plots.BLUE, plots.PURPLE)
HUMAN_COLOUR = plots.GREEN
OUTCOMES = {"win": "win vs", "tie": "tie with", "lose": "loss vs"}


def write_report(
    rows: pd.DataFrame, metrics: dict[str, Any], curves: pd.DataFrame | None, params: Params, out_dir: Path
) -> Path:
    """Write report.html to `out_dir` and return its path.

    Args:
        rows: what summarise() was given, and a column prompt (text).
        metrics: what summarise() returned.
        curves: training curves, a row per step: the column step and any others; missing values are left out.
        params: the parameters of the run; its method gives the aligned system its name.

    Raises:
        UserError: there is no column prompt.
    """
    if "prompt" not in rows:
        raise UserError("The generations have no column prompt: run the evaluate stage again.")
    return write_page(
        "evaluation/report.html.j2",
        out_dir / "report.html",
        script=SCRIPT,
        **_content(rows, metrics, params.train.method, params.evaluate),
        title=f"Evaluation: {label(systems_of(metrics)[-1], params.train.method)}",
        about=[],
        max_new_tokens=params.evaluate.max_new_tokens,
        curve_plots=[] if curves is None else list(_curve_plots(curves)),
        validation_curves=curves is not None and any(str(name).startswith("eval_") for name in curves),
        parameters=list(flatten(params.model_dump(mode="json", include=SECTIONS))),
    )


def write_comparison(
    rows: pd.DataFrame,
    metrics: dict[str, Any],
    about: Sequence[str],
    max_new_tokens: int,
    params: EvaluateParams,
    out: Path,
) -> Path:
    """The same page for two systems of different runs, written to `out`.

    Args:
        rows, metrics: as above.
        about: sentences that say what the two are.
    """
    return write_page(
        "evaluation/report.html.j2",
        out,
        script=SCRIPT,
        **_content(rows, metrics, "", params),
        title="Comparison",
        about=about,
        max_new_tokens=max_new_tokens,
        curve_plots=[],
        validation_curves=False,
        parameters=[],
    )


def _content(rows: pd.DataFrame, metrics: dict[str, Any], method: str, params: EvaluateParams) -> dict[str, Any]:
    systems = systems_of(metrics)
    baseline = "sft" if "sft" in systems[:-1] else systems[0]
    columns, headline_rows = headline(metrics, method)
    return {
        "prompts": len(rows),
        "subsets": sorted(set(rows["subset"])),
        "confidence": f"{100 * params.confidence:g}",
        "marked": is_marked(metrics),
        "headline_columns": columns,
        "headline_rows": headline_rows,
        "candidate_row": len(systems) - 1,
        "with_gold": "gold" in metrics[systems[0]][TOTAL],
        "reward_name": reward_name(metrics),
        "comparisons": list(_comparisons(metrics, systems, method)),
        "reward_plots": list(_reward_plots(rows, metrics, method)),
        "subset_rows": list(_subset_rows(metrics, systems, baseline, method)),
        "baseline": label(baseline, method),
        "cards": list(_cards(rows, systems, baseline, method)),
    }


def _colour(system: str, systems: list[str]) -> str:
    return HUMAN_COLOUR if system == HUMAN else COLOURS[systems.index(system) % len(COLOURS)]


def _comparisons(metrics: dict[str, Any], systems: list[str], method: str) -> Iterator[dict[str, Any]]:
    for system, other in [(a, b) for a in reversed(systems) for b in [*reversed(systems), HUMAN]]:
        if comparison := metrics.get(f"{system}_vs_{other}"):
            parts = [(name, round(100 * comparison[TOTAL][name], 1)) for name in OUTCOMES]
            yield {"label": f"{label(system, method)} vs {label(other, method)}", "parts": parts}


def _reward_plots(rows: pd.DataFrame, metrics: dict[str, Any], method: str) -> Iterator[tuple[str, Markup]]:
    systems = systems_of(metrics)
    shown = [*systems, HUMAN]
    kinds = {reward_name(metrics): [reward_column(system) for system in shown]}
    if all(gold_column(system) in rows for system in systems):
        kinds = {"Gold reward": [gold_column(system) for system in shown]} | kinds
    for caption, columns in kinds.items():
        present = [(system, column) for system, column in zip(shown, columns, strict=True) if column in rows]
        bins = np.histogram_bin_edges(np.concatenate([rows[column] for _, column in present]), bins=32)
        figure, axes = plots.new_figure(4.6, 0.85 * len(present) + 0.3, rows=len(present))
        for axis, (system, column) in zip(axes, present, strict=True):
            colour = _colour(system, systems)
            axis.hist(rows[column], bins=bins.tolist(), color=colour, histtype="stepfilled")
            axis.axvline(rows[column].mean(), color=plots.INK, linewidth=1.2)
            axis.set_title(label(system, method), loc="left")
            axis.grid(visible=False)
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
        yield caption, plots.svg(figure, f"{caption}: a histogram per system")


def _subset_rows(metrics: dict[str, Any], systems: list[str], baseline: str, method: str) -> Iterator[dict[str, Any]]:
    subsets = [name for name in metrics[systems[0]] if name != TOTAL]
    for place, subset in enumerate([*sorted(subsets), TOTAL]):
        for system in [*systems, HUMAN]:
            m = metrics[system][subset]
            versus = metrics.get(f"{system}_vs_{baseline}")
            yield {
                "place": place,
                "subset": "All subsets" if subset == TOTAL else subset,
                "strong": system == systems[-1],
                "system": label(system, method),
                "prompts": int(m["prompts"]),
                "gold": with_interval(m, "gold") if "gold" in m else NOTHING,
                "reward": with_interval(m, "reward"),
                "win_rate": with_interval(versus[subset], "win_rate") if versus else NOTHING,
                "sigmoid": f"{m['reward_sigmoid_x100']:.1f}",
                "bleu": f"{m['bleu']:.1f}" if "bleu" in m else NOTHING,
                "character_bleu": f"{m['character_bleu_reference']:.1f}" if "bleu" in m else NOTHING,
                "ranking": f"{100 * m['ranking_accuracy']:.0f} %" if "ranking_accuracy" in m else NOTHING,
                "finished": f"{100 * m['finished_share']:.0f} %" if "finished_share" in m else NOTHING,
                "length": f"{m['length_chars']:.0f}",
            }


def _curve_plots(curves: pd.DataFrame) -> Iterator[tuple[str, Markup]]:
    """A plot per quantity; its value on validation (eval_ before the name) goes into the same plot."""
    quantities = dict.fromkeys(str(name).removeprefix("eval_") for name in curves if name not in ("step", "epoch"))
    for quantity in quantities:
        figure, (axis,) = plots.new_figure(4.6, 2.2)
        for name, look in {
            quantity: {"color": plots.BLUE},
            f"eval_{quantity}": {"color": plots.ORANGE, "marker": "o", "markersize": 4, "linestyle": "--"},
        }.items():
            if name in curves and (known := curves[["step", name]].dropna()).size:
                axis.plot(known["step"], known[name], **look)  # type: ignore[arg-type]
        yield quantity, plots.svg(figure, f"{quantity} over the optimizer steps")


def _cards(rows: pd.DataFrame, systems: list[str], baseline: str, method: str) -> Iterator[dict[str, Any]]:
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_CARDS)).round().astype(int))
    candidate = systems[-1]
    for row in rows.iloc[places].to_dict("records"):
        gain = float(row[reward_column(candidate)] - row[reward_column(baseline)])
        outcome = "win" if gain > 0 else "lose" if gain < 0 else "tie"
        yield {
            "id": row["id"],
            "subset": row["subset"],
            "prompt": row["prompt"].strip(),
            "gain": f"{gain:.6g}",
            "outcome": outcome,
            "outcome_label": f"{OUTCOMES[outcome]} {label(baseline, method)}",
            "answers": [
                {
                    "system": label(system, method),
                    "colour": plots.CSS_VARIABLES[_colour(system, systems)],
                    "text": row[response_column(system)].strip(),
                    "reward": f"{row[reward_column(system)]:.2f}",
                    "gold": f"{row[gold_column(system)]:.2f}" if gold_column(system) in row else "",
                    "finished": system == HUMAN or bool(row[f"{system}_finished"]),
                }
                for system in [*systems, HUMAN]
            ],
        }
