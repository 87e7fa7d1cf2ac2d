"""Raw rows to train, validation and test tables; every row that cannot be used is quarantined and counted."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow.compute as pc
from tqdm import tqdm

from clha_core import paths
from clha_core.data.dialogue import Preference, Reason, RowError, parse_row
from clha_core.data.sources import RawRow, SourceSplit, Unreadable, source_splits
from clha_core.data.splits import Split, assign_split, prompt_key
from clha_core.data.tables import PreferenceWriter, read_table, write_table
from clha_core.errors import UserError
from clha_core.params import Params


@dataclass
class IngestReport:
    """What became of every row.

    Attributes:
        rows_in: rows read from the source; accepted + quarantined.
        splits: accepted rows by the split they are in now.
        subsets: by subset, the rows in, accepted and quarantined.
        reasons: quarantined rows by reason.
        subsets_without_test: how many subsets came without a test split, so that test was carved out of their train.
    """

    rows_in: int = 0
    accepted: int = 0
    quarantined: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    subsets: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    subsets_without_test: int = 0

    def to_metrics(self) -> dict[str, Any]:
        """Plain numbers for a metrics file."""
        return {
            "rows_in": self.rows_in,
            "accepted": self.accepted,
            "quarantined": self.quarantined,
            "splits": {split: self.splits[split] for split in paths.SPLITS},
            "subsets": {
                name: {key: counts[key] for key in ("rows_in", "accepted", "quarantined")}
                for name, counts in self.subsets.items()
            },
            "reasons": dict(self.reasons),
            "subsets_without_test": self.subsets_without_test,
        }


def ingest(params: Params, out: Path) -> IngestReport:
    """Read the source and write train.parquet, validation.parquet, test.parquet and quarantine.jsonl to `out`.

    Validation is carved out of train by prompt, and so is test for subsets without one (as large as validation).
    A train row whose prompt is also in test is quarantined.

    Raises:
        UserError: the source cannot be read, or a split would be empty.
    """
    sources = source_splits(params)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writers = {split: stack.enter_context(PreferenceWriter(out / f"{split}.parquet")) for split in paths.SPLITS}
        quarantine = stack.enter_context((out / paths.QUARANTINE).open("w", encoding="utf-8", newline="\n"))
        ingestion = _Ingestion(params, writers, quarantine)
        progress = stack.enter_context(tqdm(total=sum(source.rows for source in sources), desc="ingest", unit="row"))
        # Test prompts first: they decide which train rows leak.
        tested = {source.subset for source in sources if source.split == "test"}
        for source in sorted(sources, key=lambda source: (source.split != "test", source.subset in tested)):
            ingestion.take(source, carve_test=source.subset not in tested, progress=progress)
    report = ingestion.report
    report.splits.update({split: writer.rows for split, writer in writers.items()})
    if report.rows_in != report.accepted + report.quarantined or report.accepted != report.splits.total():
        raise RuntimeError(f"rows were lost: {report.to_metrics()}")
    _lend_to_empty_splits(out, report, params.data.seed)
    _check_no_empty_split(out, report)
    return report


class _Ingestion:
    """One pass over the sources: where rows go, and the count of them."""

    def __init__(self, params: Params, writers: dict[str, PreferenceWriter], quarantine: TextIO) -> None:
        self.report = IngestReport()
        self._data = params.data
        self._writers = writers
        self._quarantine = quarantine
        self._test_prompts: set[bytes] = set()

    def take(self, source: SourceSplit, *, carve_test: bool, progress: tqdm) -> None:
        self.report.subsets_without_test += carve_test
        for row in source.read():
            counts = self.report.subsets.setdefault(row.subset, Counter())
            self.report.rows_in += 1
            counts["rows_in"] += 1
            row_id = f"{row.subset}/{row.split}/{row.number:06d}"
            try:
                preference, split = self._place(row, carve_test)
            except RowError as error:
                self._set_aside(row_id, row, error)
                self.report.quarantined += 1
                self.report.reasons[error.reason] += 1
                counts["quarantined"] += 1
            else:
                self._writers[split].add(row_id, row.subset, preference)
                self.report.accepted += 1
                counts["accepted"] += 1
            progress.update()

    def _place(self, row: RawRow, carve_test: bool) -> tuple[Preference, Split]:
        if isinstance(row.raw, Unreadable):
            raise RowError(Reason.UNREADABLE_LINE, row.raw.detail)
        preference = parse_row(row.raw)
        key = prompt_key(preference.prompt, self._data.seed)
        split: Split = "test"
        if row.split == "train":
            split = assign_split(key, self._data.validation_share, carve_test)
        if split == "test":
            self._test_prompts.add(key)
        elif key in self._test_prompts:
            raise RowError(Reason.PROMPT_IN_TEST, "The prompt is also in test: training on it would leak.")
        return preference, split

    def _set_aside(self, row_id: str, row: RawRow, error: RowError) -> None:
        record = {
            "id": row_id,
            "subset": row.subset,
            "split": row.split,
            "reason": error.reason,
            "detail": error.detail,
            "raw": row.raw.text if isinstance(row.raw, Unreadable) else row.raw,
        }
        line = json.dumps(record, ensure_ascii=False, sort_keys=True, default=str)
        # Half a surrogate pair cannot be encoded; its backslash form is what JSON calls it anyway.
        self._quarantine.write(line.encode("utf-8", errors="backslashreplace").decode("utf-8") + "\n")


def _lend_to_empty_splits(out: Path, report: IngestReport, seed: int) -> None:
    """Few prompts may all hash to one side: then the nearest one to the border of the empty split moves there."""
    _lend(out, report, seed, "train", "validation", min)
    _lend(out, report, seed, "validation", "train", max)
    if report.subsets_without_test:
        _lend(out, report, seed, "train", "test", max)


def _lend(
    out: Path,
    report: IngestReport,
    seed: int,
    giver: Split,
    taker: Split,
    pick: Callable[[set[bytes]], bytes],
) -> None:
    if report.splits[taker] or not report.splits[giver]:
        return
    table = read_table(out / f"{giver}.parquet")
    keys = [prompt_key(prompt, seed) for prompt in table["prompt"].to_pylist()]
    if len(set(keys)) < 2:
        return
    moved_key = pick(set(keys))
    moved = [key == moved_key for key in keys]
    write_table(table.filter(moved), out / f"{taker}.parquet")
    write_table(table.filter(pc.invert(moved)), out / f"{giver}.parquet")
    report.splits[taker] += sum(moved)
    report.splits[giver] -= sum(moved)


def _check_no_empty_split(out: Path, report: IngestReport) -> None:
    empty = [split for split in paths.SPLITS if not report.splits[split]]
    if not empty:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report.reasons.items()))
    raise UserError(
        f"No usable rows for {', '.join(empty)}: {report.rows_in} rows read, {report.quarantined} quarantined"
        f"{f' ({reasons}; each one is in {out / paths.QUARANTINE})' if reasons else ''}. Give data with at least two "
        "different prompts in train and one in test, and check data.subsets and the row limits."
    )
