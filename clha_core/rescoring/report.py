"""What the reward model thinks of the human labels: where it contradicts them, and by how much."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy import stats

from clha_core import plots
from clha_core.errors import UserError
from clha_core.report_page import write_page
from clha_core.tokenization import HH_GENERATION_PROMPT, hh_prompt

TOTAL = "total"
DIGITS = 6
CONFIDENCE = 0.95
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
BINS = 40  # even, so that zero is an edge and no bin mixes agreement with contradiction
MOST_CONTRADICTED = 20


def rescore_summary(table: pd.DataFrame) -> dict[str, Any]:
    """Agreement of the reward model with the human labels, per subset and in total.

    A pair is contradicted if the rejected response has the higher reward. Differences are chosen - rejected,
    in units of the reward.

    Args:
        table: a row per prompt: id, subset, and sources ("chosen", "rejected", "augmented", once each for the
            first two) with rewards (descending) and responses as lists of one length.

    Returns:
        {subset or "total": {measure: value}}: pairs, contradiction_rate with the low and high end of its 95 %
        Wilson interval, tie_rate, mean and standard deviation of the difference, quantiles of its size.

    Raises:
        UserError: no rows, a row without a chosen or a rejected response, a reward that is not finite, a
            subset called "total".
    """
    pairs = _pairs(table)
    groups = {str(name): group for name, group in pairs.groupby("subset", sort=True)} | {TOTAL: pairs}
    return {
        name: {key: round(value, DIGITS) for key, value in _measures(group["difference"]).items()}
        for name, group in groups.items()
    }


def write_rescore_report(table: pd.DataFrame, out_dir: Path) -> None:
    """Write report.html and reward_differences.csv (columns subset, bin, count) to `out_dir`.

    `bin` is the middle of a bin, the same for all subsets. `table` is what rescore_summary() takes, and a
    column prompt: the turns of the dialogue (role, content).

    Raises:
        UserError: as rescore_summary(), and for a missing column prompt.
    """
    if "prompt" not in table:
        raise UserError("The rescored data has no column prompt: run the rescore stage again.")
    summary, pairs = rescore_summary(table), _pairs(table)
    edges = _edges(pairs["difference"])
    out_dir.mkdir(parents=True, exist_ok=True)
    _histogram(pairs, edges).to_csv(out_dir / "reward_differences.csv", index=False, lineterminator="\n")

    contradicted = pairs[pairs["difference"] < 0].sort_values("difference", kind="stable")
    write_page(
        "rescoring/report.html.j2",
        out_dir / "report.html",
        title="Reward rescoring",
        total=summary[TOTAL],
        summary=summary,
        plots=[(name, _plot(str(name), group, edges)) for name, group in pairs.groupby("subset", sort=True)],
        quantiles=[(f"{100 * quantile:.0f} %", _quantile_name(quantile)) for quantile in QUANTILES],
        contradicted=[
            row | {"prompt_text": _prompt_text(row["prompt"])}
            for row in contradicted.head(MOST_CONTRADICTED).to_dict("records")
        ],
        contradicted_count=len(contradicted),
    )


def _prompt_text(turns: Sequence[Mapping[str, str]]) -> str:
    return hh_prompt(turns).removesuffix(HH_GENERATION_PROMPT).strip()


def _pairs(table: pd.DataFrame) -> pd.DataFrame:
    """A row per row of `table`, with the reward and response of its chosen and its rejected side."""
    if table.empty:
        raise UserError("There are no rescored rows: the train split is empty.")
    if TOTAL in set(table["subset"]):
        raise UserError(f"A subset is called {TOTAL!r}, which is the name for all of them: rename its folder.")
    records = []
    for row in table.to_dict("records"):
        sources = list(row["sources"])
        if sources.count("chosen") != 1 or sources.count("rejected") != 1:
            raise UserError(
                f"Row {row['id']} has the candidates {sources}: it needs one chosen and one rejected response."
            )
        record: dict[str, Any] = {str(key): row[key] for key in ("id", "subset", "prompt") if key in row}
        for side in ("chosen", "rejected"):
            place = sources.index(side)
            record |= {side: row["responses"][place], f"{side}_reward": float(row["rewards"][place])}
        records.append(record)
    pairs = pd.DataFrame(records)
    pairs["difference"] = pairs["chosen_reward"] - pairs["rejected_reward"]
    bad = ~pairs["difference"].abs().lt(float("inf"))  # true for nan as well
    if bad.any():
        raise UserError(
            f"{int(bad.sum())} rows have rewards that are not finite, the first is {pairs['id'][bad].iloc[0]!r}: "
            "the reward model overflowed; set reward_model.dtype to float32."
        )
    return pairs


def _measures(difference: pd.Series) -> dict[str, float]:
    contradicted = int((difference < 0).sum())
    interval = stats.binomtest(contradicted, len(difference)).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "pairs": float(len(difference)),
        "contradiction_rate": contradicted / len(difference),
        "contradiction_rate_low": float(interval.low),
        "contradiction_rate_high": float(interval.high),
        "tie_rate": float((difference == 0).mean()),
        "difference_mean": float(difference.mean()),
        "difference_std": float(difference.std(ddof=0)),
    } | {_quantile_name(quantile): float(difference.abs().quantile(quantile)) for quantile in QUANTILES}


def _quantile_name(quantile: float) -> str:
    return f"difference_size_q{100 * quantile:.0f}"


def _edges(difference: pd.Series) -> np.ndarray:
    largest = float(difference.abs().max()) or 1.0  # all tied: any width does
    return largest * (np.arange(-(BINS // 2), BINS // 2 + 1) / (BINS // 2))  # zero and both ends are exact


def _histogram(pairs: pd.DataFrame, edges: np.ndarray) -> pd.DataFrame:
    middles = ((edges[:-1] + edges[1:]) / 2).round(DIGITS)
    parts = []
    for name, group in pairs.groupby("subset", sort=True):
        counts, _ = np.histogram(group["difference"], bins=edges)
        parts.append(pd.DataFrame({"subset": name, "bin": middles, "count": counts}))
    return pd.concat(parts, ignore_index=True)


def _plot(subset: str, group: pd.DataFrame, edges: np.ndarray) -> Markup:
    figure, (axis,) = plots.new_figure(4.6, 2.2)
    counts, _ = np.histogram(group["difference"], bins=edges)
    half = BINS // 2
    axis.stairs(counts[:half], edges[: half + 1], fill=True, color=plots.ORANGE)
    axis.stairs(counts[half:], edges[half:], fill=True, color=plots.BLUE)
    axis.axvline(0, color=plots.INK, linewidth=1)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("reward of chosen - reward of rejected")
    axis.set_ylabel("pairs")
    return plots.svg(figure, f"{subset}: histogram of reward differences")
