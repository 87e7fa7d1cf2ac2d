"""Draw docs/images/tree-packing.svg: `python docs/figures/tree_packing.py [FILE]`, from the repository root."""

import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from clha_core.packing.trees import Tree, pack_trees
from clha_core.reporting.plots import BLUE, GREEN, INK, ORANGE, RULE, STYLE

PADDING = "#d9dce1"
SIBLINGS = (ORANGE, GREEN)
# Lengths only: the figure shows positions, not tokens.
TREES = (Tree([0] * 5, [[0] * 4, [0] * 6]), Tree([0] * 3, [[0] * 3, [0] * 5]))


def main(file: Path) -> None:
    """Draw the figure."""
    with rc_context({**STYLE, "axes.grid": False, "axes.titlesize": 9.5, "axes.titleweight": "bold"}):
        figure = Figure(figsize=(10, 4.6), layout="constrained", facecolor="white")
        axes = figure.subplot_mosaic(
            [["padded", "mask"], ["pack", "mask"]], width_ratios=(1.5, 1), height_ratios=(2.1, 1)
        )
        _draw_padded(axes["padded"])
        _draw_pack(axes["pack"])
        _draw_mask(axes["mask"])
        figure.savefig(file, metadata={"Date": None, "Creator": None} if file.suffix == ".svg" else None, dpi=130)


def _draw_padded(axes: Axes) -> None:
    width = max(len(tree.prompt) + len(response) for tree in TREES for response in tree.responses)
    line = 0.0
    for name, tree in zip("AB", TREES, strict=True):
        axes.text(-0.5, line + 1, f"row {name}", ha="right", va="center")
        for colour, response in zip(SIBLINGS, tree.responses, strict=True):
            shared, end = len(tree.prompt), len(tree.prompt) + len(response)
            for at in range(width):
                inside = colour if at < end else PADDING
                _cell(axes, at, line, BLUE if at < shared else inside, str(at) if at < end else "")
            line += 1
        line += 0.5
    _frame(axes, (-2.2, width + 0.1), (line - 0.4, -0.1))
    cells = width * sum(len(tree.responses) for tree in TREES)
    axes.set_title(f"Padded, a line for each candidate: {cells} positions, prompts twice", pad=8)


def _draw_pack(axes: Axes) -> None:
    pack = pack_trees(TREES)
    colours = [
        colour
        for tree in TREES
        for colour, length in (
            (BLUE, len(tree.prompt)),
            *((colour, len(response) - 1) for colour, response in zip(SIBLINGS, tree.responses, strict=True)),
        )
        for _ in range(length)
    ]
    for at, (colour, position) in enumerate(zip(colours, pack.position_ids[0].tolist(), strict=True)):
        _cell(axes, at, 0, colour, str(position))
    start = 0
    for name, segment in zip("AB", pack.segments, strict=True):
        end = start + segment.prompt + segment.responses
        axes.plot([start + 0.08, end - 0.08], [1.22, 1.22], color=INK, linewidth=1)
        axes.text((start + end) / 2, 1.35, f"tree {name}", ha="center", va="top")
        start = end
    _frame(axes, (-0.2, len(colours) + 0.2), (4.4, -0.1))
    axes.set_title(f"Packed, one line for all rows: {len(colours)} positions, each prompt once", pad=8)
    legend = {
        0.2: (BLUE, "prompt"),
        4.6: (ORANGE, "first candidate"),
        11.6: (GREEN, "second"),
        16.4: (PADDING, "padding"),
    }
    for x, (colour, label) in legend.items():
        axes.add_patch(Rectangle((x, 3.3), 0.8, 0.8, color=colour, linewidth=0))
        axes.text(x + 1.1, 3.72, label, va="center")


def _draw_mask(axes: Axes) -> None:
    tree = TREES[0]
    prompt, first, second = len(tree.prompt), *(len(response) - 1 for response in tree.responses)
    parts = [BLUE] * prompt + [ORANGE] * first + [GREEN] * second
    branches = [0] * prompt + [1] * first + [2] * second
    size = len(parts)
    for query in range(size):
        for key in range(size):
            seen = key <= query and branches[key] in (0, branches[query])
            _cell(axes, key, query, parts[key] if seen else "white", "")
    for at, colour in enumerate(parts):
        axes.add_patch(Rectangle((at + 0.05, -1.15), 0.9, 0.75, color=colour, linewidth=0))
        axes.add_patch(Rectangle((-1.15, at + 0.05), 0.75, 0.9, color=colour, linewidth=0))
    axes.add_patch(Rectangle((prompt, prompt + first), first, second, facecolor="white", edgecolor=RULE))
    axes.text(prompt + first / 2, prompt + first + second / 2, "never\nseen", ha="center", va="center")
    axes.text(-1.6, size / 2, "this token", rotation=90, ha="right", va="center")
    axes.text(size / 2, size + 0.35, "sees these tokens", ha="center", va="top")
    _frame(axes, (-3, size), (size + 1.2, -1.3))
    axes.set_title("Attention inside tree A", pad=8)


def _cell(axes: Axes, x: float, y: float, colour: str, label: str) -> None:
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor=RULE if colour == "white" else "white"))
    dark = colour == BLUE
    axes.text(x + 0.5, y + 0.53, label, ha="center", va="center", fontsize=8, color="white" if dark else INK)


def _frame(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    axes.set_xlim(*x)
    axes.set_ylim(*y)
    axes.set_aspect("equal")
    axes.set_anchor("NW")
    axes.axis("off")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/tree-packing.svg"))
