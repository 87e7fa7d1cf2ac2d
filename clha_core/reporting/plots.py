"""One look for all plots: inline SVG whose colours follow the page that shows it, and whose bytes repeat."""

import io
import re
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which readers with any kind of colour vision can tell apart.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#8a8f98"
INK, RULE = "#24292f", "#d0d7de"
# Pages that set these CSS variables recolour the plots, for example on a dark background.
CSS_VARIABLES = {
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    PURPLE: "--purple",
    GREY: "--grey",
    INK: "--ink",
    RULE: "--rule",
}
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.5,
    "text.color": INK,
    "text.parse_math": False,  # labels are data: a dollar sign is a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "clha",  # element ids repeat from run to run
}


def new_figure(width: float, height: float, *, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of plots, row by row, that share the x axis of their column and the y axis of their row.

    Sizes are in inches.

    It does not go through pyplot, so there is no window system, no global state and nothing to close.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, sharex="col", sharey="row", squeeze=False)
    return figure, list(axes.flat)


def svg(figure: Figure, description: str) -> Markup:
    """The figure as an SVG element to put into HTML: scalable, transparent, with a text for screen readers."""
    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Group ids are not referred to, and would repeat when a page shows several plots.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, variable in CSS_VARIABLES.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    label = Markup('<svg role="img" aria-label="{}" ').format(description)
    return label + Markup(text.removeprefix("<svg "))  # matplotlib escapes the texts in it


def standalone_svg(figure: Figure) -> str:
    """The figure as an SVG file of its own, on white: for pages that cannot set colours."""
    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()
