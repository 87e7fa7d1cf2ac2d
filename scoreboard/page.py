"""The scoreboard for readers: a Markdown file of tables, and one figure for each number of candidates."""

import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from clha_core import plots
from scoreboard import table, tuning
from scoreboard.study import Study

SHOWN = ("gold", "sampled_gold", "reward", "gold_wins")
REFERENCES = ("base", "start")


def write(study: Study, out: Path) -> list[Path]:
    """Write scoreboard-tables.md, and scoreboard-n<candidates>.svg, to `out`.

    Raises:
        UserError: no cell has run.
    """
    cells = table.frame(table.finished(study))
    rows = table.summary(cells)
    out.mkdir(parents=True, exist_ok=True)
    page = out / "scoreboard-tables.md"
    page.write_text(_page(study, cells, rows), encoding="utf-8")
    written = [page]
    for candidates in rows["candidates"].unique():
        picture = out / "figures" / f"scoreboard-n{candidates}.svg"
        picture.parent.mkdir(exist_ok=True)
        picture.write_text(plots.standalone_svg(_figure(rows[rows["candidates"] == candidates])), encoding="utf-8")
        written.append(picture)
    return written


def _page(study: Study, cells: pd.DataFrame, rows: pd.DataFrame) -> str:
    seeds = rows["seeds"].min(), rows["seeds"].max()
    parts = [
        "<!-- Written by `python -m scoreboard table`. -->",
        "# Scoreboard: tables",
        f"Mean over {seeds[0] if seeds[0] == seeds[1] else f'{seeds[0]} to {seeds[1]}'} seeds (each with data, base, "
        f"reward models and training of its own) ± half of the 95 % t-interval, {study.prompts} test prompts. "
        "`start` is the SFT model that every training begins with.",
    ]
    for candidates in rows["candidates"].unique():
        parts += [table.markdown(rows, int(candidates), measure) for measure in SHOWN]
    parts.append("## CLHA against the others, gold reward of greedy answers, paired by seed")
    parts.append(_differences(study, cells))
    parts.append("## Picked settings")
    parts += [_tuning(candidates) for candidates in study.candidates if tuning.tuning_path(candidates).exists()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _differences(study: Study, cells: pd.DataFrame) -> str:
    others = [name for name in [*study.methods, *study.ablations, "start"] if name != "clha"]
    found = {name: table.against(cells, "clha", name, "gold") for name in others if name in set(cells["variant"])}
    keys = [(row.candidates, row.noise) for row in next(iter(found.values())).itertuples()]
    head = "| clha minus | " + " | ".join(f"n = {candidates}, {noise:.0%}" for candidates, noise in keys) + " |"
    lines = [head, "|:--|" + "--:|" * len(keys)]
    for name, differences in found.items():
        values = [f"{row.difference:+.2f} ± {row.half:.2f}" for row in differences.itertuples()]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _tuning(candidates: int) -> str:
    tuned = json.loads(tuning.tuning_path(candidates).read_text(encoding="utf-8"))
    picked = tuning.picked(tuned)
    lines = [f"| n = {candidates} | setting | evaluation reward, validation | gold, validation | picked |"]
    lines.append("|:--|:--|--:|--:|:-:|")
    for name, tried in tuned["tried"].items():
        for one in tried:
            mark = "✓" if one["set"] == picked[name] else ""
            lines.append(
                f"| {name} | {tuning.setting_text(one['set'])} | {one['reward']:.2f} | {one['gold']:.2f} | {mark} |"
            )
    return "\n".join(lines)


def _figure(rows: pd.DataFrame) -> Figure:
    """Gold reward of greedy answers with intervals: a panel for each noise level, a line for each variant."""
    levels = sorted(rows["noise"].unique())
    variants = [name for name in rows["variant"].unique() if name not in REFERENCES]
    figure, axes = plots.new_figure(7.2, 0.19 * len(variants) * len(levels) + 1.2, rows=len(levels))
    for axis, level in zip(axes, levels, strict=True):
        at_level = rows[rows["noise"] == level].set_index("variant")
        axis.set_title(f"{level:.0%} of the labels flipped")
        for reference, style in zip(REFERENCES, (":", "--"), strict=True):
            axis.axvline(at_level.loc[reference, "gold"], color=plots.GREY, linestyle=style)
        for place, name in enumerate(reversed(variants)):
            colour = plots.ORANGE if name == "clha" else plots.BLUE
            axis.errorbar(
                at_level.loc[name, "gold"], place, xerr=at_level.loc[name, "gold_half"], fmt="o", color=colour, ms=4
            )
        axis.set_yticks(range(len(variants)), list(reversed(variants)))
        axis.grid(axis="y", visible=False)
    axes[-1].set_xlabel("gold reward of greedy answers (dotted: base, dashed: SFT start)")
    return figure
