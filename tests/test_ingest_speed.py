"""What reads all rows, at a tenth of HH's size: rows are complete, memory does not grow with them."""

import gzip
import json
from pathlib import Path

import pytest

from benchmarks.hh_rows import HH_ROWS, HH_TRAIN_ROWS, write_hh
from benchmarks.ingest_speed import Contestant, measure
from benchmarks.line_loop import line_loop
from benchmarks.rescored_rows import write_rescored
from clha_core import paths
from clha_core.data.dialogue import RowError, parse_row
from clha_core.data.tables import RESCORED_SCHEMA, PreferenceWriter, read_table


def raw_rows(folder: Path) -> list[dict[str, str]]:
    rows = []
    for file in sorted(folder.glob("*/*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows += [json.loads(line) for line in lines]
    return rows


def test_made_up_rows_have_hhs_subsets_and_sizes(tmp_path: Path, hh_slice: Path) -> None:
    assert HH_TRAIN_ROWS == 160_800
    assert write_hh(tmp_path, 2_000) == len(raw_rows(tmp_path))
    assert {folder.name for folder in tmp_path.iterdir()} == set(HH_ROWS)

    def mean_size(rows: list[dict[str, str]]) -> float:
        return sum(len(row["chosen"]) + len(row["rejected"]) for row in rows) / len(rows)

    def refused(rows: list[dict[str, str]]) -> float:
        count = 0
        for row in rows:
            try:
                parse_row(row)
            except RowError:
                count += 1
        return count / len(rows)

    made_up, real = raw_rows(tmp_path), raw_rows(hh_slice)
    assert mean_size(made_up) == pytest.approx(mean_size(real), rel=0.1)
    assert refused(made_up) == pytest.approx(refused(real), abs=0.005)


def test_the_line_loop_reads_the_same_dialogues(tmp_path: Path) -> None:
    write_hh(tmp_path / "rows", 200)
    assert line_loop(tmp_path / "rows", tmp_path / "out") == len(raw_rows(tmp_path / "rows"))
    for raw, line in zip(raw_rows(tmp_path / "rows"), (tmp_path / "out" / "rows.jsonl").open(), strict=True):
        try:
            parsed = parse_row(raw)
        except RowError:
            continue
        assert [text.split(": ", 1)[1].strip() for text in json.loads(line)["responses"]] == parsed.responses


def test_rows_with_rewards_are_ranked_and_keep_their_texts(tmp_path: Path) -> None:
    rows = {f"row {number}": {"chosen": f"yes {number}", "rejected": f"no {number}"} for number in range(30)}
    with PreferenceWriter(tmp_path / "ingested.parquet") as writer:
        for row_id, sides in rows.items():
            writer.add(row_id, "s", parse_row({"prompt": row_id, **sides}))
    write_rescored(tmp_path / "ingested.parquet", tmp_path / "out" / "rescored.parquet")
    for row in read_table(tmp_path / "out" / "rescored.parquet", RESCORED_SCHEMA).to_pylist():
        assert row["rewards"] == sorted(row["rewards"], reverse=True)
        assert dict(zip(row["sources"], row["responses"], strict=True)) == rows[row["id"]]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks: dict[Contestant, list[float]] = {}
    for size in (2_000, 20_000):
        rows, source, work = write_hh(tmp_path / f"{size}", size), tmp_path / f"{size}", tmp_path / f"work-{size}"
        for contestant in (Contestant.INGEST, Contestant.VALIDATE):
            peaks.setdefault(contestant, []).append(measure(contestant, source, work).peak_mib)
        counts = json.loads((work / paths.INGEST_METRICS).read_text())
        assert counts["rows_in"] == counts["accepted"] + counts["quarantined"] == rows
        assert json.loads((work / paths.VALIDATE_METRICS).read_text())["success"] is True
    for contestant, (small, large) in peaks.items():
        assert large < 1.2 * small, f"{contestant}: {small:.0f} MiB at 2,000 rows, {large:.0f} MiB at 20,000"
