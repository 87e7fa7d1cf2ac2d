"""The plots of the noise report."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context

from clha_core.reporting import plots
from clha_core.rescoring.noise.measures import histogram_edges

BINS = 40  # even: see histogram_edges
_WIDTH, _HEIGHT = 4.6, 2.2
# Quantiles on the gap's axis; one that is nearer to the last one than this share of the axis is left out.
_TICKS = (0.25, 0.5, 0.75, 0.9)
_TICK_SPACE = 0.09
_SHOWN = 0.99


def histogram(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of reward differences: columns subset, bin (its middle; the same bins for all subsets), count."""
    edges = histogram_edges(table["difference"], BINS)
    middles = ((edges[:-1] + edges[1:]) / 2).round(6)
    parts = []
    for name, group in table.groupby("subset", sort=True, observed=True):
        counts, _ = np.histogram(group["difference"], bins=edges)
        parts.append(pd.DataFrame({"subset": name, "bin": middles, "count": counts}))
    return pd.concat(parts, ignore_index=True)


def histogram_plots(table: pd.DataFrame) -> list[tuple[str, Markup]]:
    """A histogram of reward differences for each subset, contradictions in a colour of their own."""
    edges, half = histogram_edges(table["difference"], BINS), BINS // 2
    shown = []
    for name, group in table.groupby("subset", sort=True, observed=True):
        counts, _ = np.histogram(group["difference"], bins=edges)
        figure, (axis,) = plots.new_figure(_WIDTH, _HEIGHT)
        axis.stairs(counts[:half], edges[: half + 1], fill=True, color=plots.ORANGE)
        axis.stairs(counts[half:], edges[half:], fill=True, color=plots.BLUE)
        axis.axvline(0, color=plots.INK, linewidth=1)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("reward of chosen - reward of rejected")
        axis.set_ylabel("pairs")
        shown.append((str(name), plots.svg(figure, f"{name}: histogram of reward differences")))
    return shown


def bucket_plots(buckets: pd.DataFrame, rate: float) -> list[tuple[str, Markup]]:
    """For each length, the contradiction rate of its buckets with intervals; the line is the rate of all pairs."""
    highest = 100 * max(buckets["contradiction_rate_high"].max(), rate) * 1.08
    shown = []
    for length, group in buckets.groupby("length", sort=False):
        figure, (axis,) = plots.new_figure(_WIDTH, _HEIGHT)
        centre = 100 * group["contradiction_rate"]
        reach = [centre - 100 * group["contradiction_rate_low"], 100 * group["contradiction_rate_high"] - centre]
        places = np.arange(len(group))
        axis.axhline(100 * rate, color=plots.GREY, linewidth=1, linestyle="--")
        axis.errorbar(places, centre, yerr=reach, fmt="o", color=plots.ORANGE, markersize=5, capsize=3)
        axis.set_xticks(places, [_range(low, high) for low, high in zip(group["from"], group["to"], strict=True)])
        axis.set_xlim(-0.5, len(group) - 0.5)
        axis.set_ylim(0, max(highest, 1))
        axis.grid(visible=False, axis="x")
        axis.set_xlabel("characters")
        axis.set_ylabel("contradicted, %")
        shown.append((f"{length}", plots.svg(figure, f"{length}: share of contradicted labels by length")))
    return shown


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}\nto {high}"


def gap_plot(curve: pd.DataFrame, neighbours: np.ndarray) -> Markup:
    """Shares over the reward gap; the quantiles of train.reward_gap_quantile are on the upper axis."""
    figure, (axis,) = plots.new_figure(_WIDTH, 3.9)
    lines = {
        "masked": ("neighbouring ranks masked", plots.BLUE, "-"),
        "contradictions_left": ("contradictions left, of all contradictions", plots.ORANGE, "-"),
        "contradicted_of_kept": ("contradicted, of the labels left", plots.ORANGE, "--"),
        "wrong_of_kept": ("truly the wrong way round, of the pairs left", plots.GREEN, "-."),
    }
    for column, (name, colour, style) in lines.items():
        if column in curve:
            axis.plot(curve["gap"], 100 * curve[column], label=name, color=colour, linestyle=style)
    # Beyond lie a few pairs, and shares of a few are noise.
    end = float(np.quantile(neighbours, _SHOWN)) or float(curve["gap"].max()) or 1.0
    axis.set_xlim(0, end)
    axis.set_ylim(0, 100)
    axis.set_xlabel("reward gap")
    axis.set_ylabel("%")
    ticks: dict[float, str] = {}
    for quantile in _TICKS:
        place = float(np.quantile(neighbours, quantile))
        if place - max(ticks, default=-end) >= _TICK_SPACE * end:
            ticks[place] = f"{100 * quantile:.0f} %"
    with rc_context(plots.STYLE):
        figure.legend(loc="outside lower left")
        upper = axis.secondary_xaxis("top")
        upper.set_xticks(list(ticks), list(ticks.values()))
        upper.set_xlabel("quantile")
    return plots.svg(figure, "Shares of pairs masked and of contradictions left over the reward gap")


def detection_plot(curves: Mapping[str, pd.DataFrame], found: Mapping[str, Mapping[str, float]]) -> Markup:
    """Precision over recall for each kind of bad label; the dot is the contradictions, as `found` has them."""
    figure, (axis,) = plots.new_figure(_WIDTH, 3.0)
    for (name, curve), colour, style in zip(curves.items(), (plots.BLUE, plots.PURPLE), ("-", "--"), strict=False):
        axis.plot(100 * curve["recall"], 100 * curve["precision"], label=name, color=colour, linestyle=style)
        if "recall" in found[name]:
            axis.plot([100 * found[name]["recall"]], [100 * found[name]["precision"]], marker="o", color=colour)
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)
    axis.set_xlabel("recall, %")
    axis.set_ylabel("precision, %")
    with rc_context(plots.STYLE):
        axis.legend(loc="lower left")
    return plots.svg(figure, "Precision over recall of the bad labels found")
