"""The noise report: its figures for metrics/rescore.json, its page and its tables."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from clha_core.data.tables import RESCORED_SCHEMA, read_batches
from clha_core.params import SampleParams
from clha_core.reporting.page import write_page
from clha_core.rescoring.noise import figures, measures
from clha_core.rescoring.noise.gap import gap_curve, gap_table
from clha_core.rescoring.noise.pairs import TOTAL, Pairs, read_pairs
from clha_core.rescoring.noise.truth import Truth, detection_curve, detection_measures, sample_truth
from clha_core.tokenization import HH_GENERATION_PROMPT, hh_prompt

DIGITS = 6
# Bad labels of generated data: as a sentence, and as a key of the metrics.
FLIPS, WRONG = "flipped by noise", "against the gold reward"
_KEYS = {FLIPS: "flips", WRONG: "wrong_labels"}


def report_noise(rescored: Path, out_dir: Path, sample: SampleParams | None = None) -> dict[str, Any]:
    """Write the report on rescored rows to `out_dir` and return its figures.

    The rows are read a batch at a time: a few numbers of each stay in memory. Written are report.html,
    reward_differences.csv, contradictions_by_length.csv, gap_curve.csv and, for generated data, detection.csv.

    Args:
        rescored: a Parquet file of RESCORED_SCHEMA.
        sample: what the rows were generated from; None for data whose truth nobody knows.

    Raises:
        UserError: as `read_pairs` and `read_batches` do.
    """
    pairs = read_pairs(read_batches(rescored, RESCORED_SCHEMA))
    truth = None if sample is None else sample_truth(_ids(rescored), sample)
    summary = summarise(pairs, truth)
    write_report(pairs, summary, out_dir, truth)
    return summary


def _ids(rescored: Path) -> Iterable[str]:
    return (row_id for batch in read_batches(rescored, RESCORED_SCHEMA) for row_id in batch["id"].to_pylist())


def summarise(pairs: Pairs, truth: Truth | None = None) -> dict[str, Any]:
    """The figures of the report.

    Returns:
        `labels`: for each subset and for "total" `label_measures` and `length_bias`; `best`: `origin_measures`; `gap`:
        `gap_table` by quantile ("q25"); with `truth` also `flips` and `wrong_labels`: `detection_measures` of both.
    """
    summary: dict[str, Any] = {
        "labels": {
            name: measures.label_measures(group) | measures.length_bias(group)
            for name, group in measures.groups(pairs.table)
        },
        "best": measures.origin_measures(pairs.origins),
        "gap": {
            f"q{100 * row.pop('quantile'):.0f}": {key: value for key, value in row.items() if pd.notna(value)}
            for row in gap_table(pairs, truth).to_dict("records")
        },
    }
    if truth is not None:
        difference = pairs.table["difference"]
        summary |= {_KEYS[name]: detection_measures(difference, bad) for name, bad in _bad_labels(truth).items()}
    return _rounded(summary)


def write_report(pairs: Pairs, summary: Mapping[str, Any], out_dir: Path, truth: Truth | None = None) -> None:
    """Write the page and the tables to `out_dir`; equal input gives equal bytes.

    Args:
        summary: what summarise() returned.
    """
    buckets, curve = measures.length_buckets(pairs.table), gap_curve(pairs, truth)
    tables = {
        "reward_differences": figures.histogram(pairs.table),
        "contradictions_by_length": buckets,
        "gap_curve": curve,
    }
    detection: dict[str, Any] = {}
    detection_plot = Markup("")
    if truth is not None:
        curves = {name: detection_curve(pairs.table["difference"], bad) for name, bad in _bad_labels(truth).items()}
        tables["detection"] = pd.concat([one.assign(bad=_KEYS[name]) for name, one in curves.items()])
        detection = {name: summary[_KEYS[name]] for name in curves}
        detection_plot = figures.detection_plot(curves, detection)
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.round(DIGITS).to_csv(out_dir / f"{name}.csv", index=False, lineterminator="\n")
    total = summary["labels"][TOTAL]
    write_page(
        "rescoring/noise/report.html.j2",
        out_dir / "report.html",
        title="Label noise",
        total=total,
        labels=summary["labels"],
        contradicted_count=int((pairs.table["difference"] < 0).sum()),
        histograms=figures.histogram_plots(pairs.table),
        bucket_plots=figures.bucket_plots(buckets, total["contradiction_rate"]),
        gap_plot=figures.gap_plot(curve, pairs.neighbours),
        gaps=gap_table(pairs, truth).to_dict("records"),
        more_than_pairs=len(pairs.neighbours) > len(pairs.table),
        best=summary["best"],
        flips=detection.get(FLIPS, {}),
        detection=detection,
        detection_plot=detection_plot,
        contradicted=[row | {"prompt_text": _prompt_text(row["prompt"])} for row in pairs.most_contradicted],
    )


def _bad_labels(truth: Truth) -> dict[str, Any]:
    return {FLIPS: truth.flipped, WRONG: truth.wrong}


def _prompt_text(turns: Sequence[Mapping[str, str]]) -> str:
    return hh_prompt(turns).removesuffix(HH_GENERATION_PROMPT).strip()


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _rounded(value) for key, value in values.items()}
    return round(float(values), DIGITS)
