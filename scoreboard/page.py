"""A study for readers: a Markdown file of tables, and one figure for each number of candidates."""

import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from clha_core.reporting import plots
from scoreboard import table, tuning
from scoreboard.study import Study

SHOWN = ("gold", "sampled_gold", "reward", "gold_wins", "reward_wins", "tokens")
REFERENCES = ("base", "start")


def write(study: Study, out: Path) -> list[Path]:
    """Write scoreboard-<study>.md, and figures/scoreboard-<study>-n<candidates>.svg, to `out`.

    Raises:
        UserError: no cell has run.
    """
    cells = table.frame(table.finished(study))
    rows = table.summary(cells)
    out.mkdir(parents=True, exist_ok=True)
    page = out / f"scoreboard-{study.name}.md"
    page.write_text(_page(study, cells, rows), encoding="utf-8")
    written = [page]
    for candidates in rows["candidates"].unique():
        picture = out / "figures" / f"scoreboard-{study.name}-n{candidates}.svg"
        picture.parent.mkdir(exist_ok=True)
        picture.write_text(
            plots.standalone_svg(_figure(rows[rows["candidates"] == candidates], _plotted(cells))), encoding="utf-8"
        )
        written.append(picture)
    return written


def _plotted(cells: pd.DataFrame) -> list[str]:
    """The measures that count most: the truth where it is known."""
    return ["gold", "sampled_gold"] if "gold" in cells else ["reward"]


def _page(study: Study, cells: pd.DataFrame, rows: pd.DataFrame) -> str:
    seeds = rows["seeds"].min(), rows["seeds"].max()
    own = "data, base" if "gold" in cells else "base"
    parts = [
        "<!-- Written by `python -m scoreboard table`. -->",
        f"# Scoreboard: tables of the study `{study.name}`",
        f"Mean over {seeds[0] if seeds[0] == seeds[1] else f'{seeds[0]} to {seeds[1]}'} seeds (each with {own}, "
        f"reward models and training of its own) ± half of the 95 % t-interval, {study.prompts} test prompts. "
        "`start` is the SFT model that every training begins with.",
    ]
    for candidates in rows["candidates"].unique():
        parts += [
            table.markdown(rows, int(candidates), measure) for measure in SHOWN if measure in table.measures_of(cells)
        ]
    measures = [measure for measure in ("gold", "sampled_gold", "reward") if measure in cells]
    for measure in measures:
        parts += [f"## CLHA against the others, paired by seed: {table.MEASURES[measure]}"]
        parts += [_differences(study, cells, measure)]
    parts.append("## Picked settings" + (f" (study `{study.settings_from}`)" if study.settings_from else ""))
    parts += [_tuning(study, candidates) for candidates in study.candidates]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _differences(study: Study, cells: pd.DataFrame, measure: str) -> str:
    others = [name for name in [*study.methods, *study.ablations, "start"] if name != "clha"]
    found = {name: table.against(cells, "clha", name, measure) for name in others}
    kinds = [f"n = {row.candidates}, {row.noise:.0%}" for row in next(iter(found.values())).itertuples()]
    lines = [f"| clha minus | {' | '.join(kinds)} | all |", "|:--|" + "--:|" * (len(kinds) + 1)]
    for name, differences in found.items():
        values = [(row.difference, row.half) for row in differences.itertuples()]
        values.append(table.overall(cells, "clha", name, measure))
        lines.append(f"| {name} | " + " | ".join(f"{mean:+.2f} ± {half:.2f}" for mean, half in values) + " |")
    return "\n".join(lines)


def _tuning(study: Study, candidates: int) -> str:
    tuned = json.loads(tuning.tuning_path(study, candidates).read_text(encoding="utf-8"))
    picked = tuning.picked(tuned)
    lines = [f"| n = {candidates} | setting | evaluation reward, validation | gold, validation | picked |"]
    lines.append("|:--|:--|--:|--:|:-:|")
    for name, tried in tuned["tried"].items():
        for one in tried:
            mark = "✓" if one["set"] == picked[name] else ""
            gold = f"{one['gold']:.2f}" if "gold" in one else "unknown"
            lines.append(f"| {name} | {tuning.setting_text(one['set'])} | {one['reward']:.2f} | {gold} | {mark} |")
    return "\n".join(lines)


def _figure(rows: pd.DataFrame, measures: list[str]) -> Figure:
    """Measures with intervals: a panel for each noise level, a line for each variant, the first measure filled."""
    levels = sorted(rows["noise"].unique())
    variants = [name for name in rows["variant"].unique() if name not in REFERENCES]
    figure, axes = plots.new_figure(2.4 * len(levels) + 1.6, 0.19 * len(variants) + 1.2, columns=len(levels))
    # What falls far behind the base would squeeze all others: it stands at the edge, as a figure.
    lowest = min(float(rows.loc[rows["variant"] == "base", name].min()) for name in measures) - 0.5
    highest = max(float((rows[name] + rows[f"{name}_half"].fillna(0)).max()) for name in measures) + 0.1
    for axis, level in zip(axes, levels, strict=True):
        axis.set_xlim(lowest, highest)
        at_level = rows[rows["noise"] == level].set_index("variant")
        axis.set_title(f"{level:.0%} of the labels flipped" if "gold" in measures else "labels as they are")
        for reference, style in zip(REFERENCES, (":", "--"), strict=True):
            axis.axvline(at_level.loc[reference, measures[0]], color=plots.GREY, linestyle=style)
        for place, name in enumerate(reversed(variants)):
            colour = plots.ORANGE if name.startswith("clha") else plots.BLUE
            if (at_level.loc[name, measures] < lowest).any():
                text = f"\u25c2 {at_level.loc[name, measures[0]]:.1f}"
                axis.annotate(text, (lowest, place), color=colour, va="center", size=7)
                continue
            for measure, fill in zip(measures, (colour, "white"), strict=False):
                value, half = at_level.loc[name, measure], at_level.loc[name, f"{measure}_half"]
                axis.errorbar(value, place, xerr=half, fmt="o", color=colour, mfc=fill, ms=4, lw=1)
        axis.set_yticks(range(len(variants)), list(reversed(variants)))
        axis.grid(axis="y", visible=False)
    shown = " and ".join(
        f"{table.MEASURES[name]} ({dot})" for name, dot in zip(measures, ("\u25cf", "\u25cb"), strict=False)
    )
    figure.supxlabel(f"{shown}; dotted: base, dashed: SFT start", size=8)
    return figure
