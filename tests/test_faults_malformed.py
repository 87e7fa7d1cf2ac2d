"""Whatever bytes users bring: a sentence or rows, no traceback, and no row lost. `make faults` tries thousands more."""

import sys
from itertools import islice
from pathlib import Path

import pytest

from clha_core import cli
from clha_core.data.sources import local
from reliability.malformed import Tally, bytes_campaign, feed, structured_campaign
from reliability.readers import HH_ROWS, READERS, SHEET, Reader, RowsLost

CORRUPTED, NEARLY_VALID = 30, 30


def of_name(name: str) -> Reader:
    return next(reader for reader in READERS if reader.name == name)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_is_valid_is_read(reader: Reader, tmp_path: Path) -> None:
    tally = Tally()
    for data in reader.valid:
        feed(reader, reader.pack(data), tally, tmp_path)
    assert (tally.read, tally.refused, tally.faults) == (len(reader.valid), 0, {})


def test_corrupted_files_give_sentences_and_lose_no_row() -> None:
    tallies = bytes_campaign(CORRUPTED, seed=2)
    assert {name: tally.faults for name, tally in tallies.items() if tally.failed} == {}
    assert {tally.inputs for tally in tallies.values()} == {CORRUPTED}
    never_refused = {name for name, tally in tallies.items() if not tally.refused}
    assert never_refused <= {"jsonl", "candidates"}  # they set lines aside instead


def test_well_formed_files_with_wrong_values_give_sentences_and_lose_no_row() -> None:
    tallies = structured_campaign(NEARLY_VALID, seed=2)
    assert {name: tally.faults for name, tally in tallies.items() if tally.failed} == {}


def test_a_reader_that_loses_a_row_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = local.json_lines
    monkeypatch.setattr(local, "json_lines", lambda file: islice(whole(file), 1, None))
    tally = Tally()
    feed(of_name("jsonl"), HH_ROWS, tally, tmp_path)
    (fault,) = tally.faults
    assert fault.startswith(RowsLost.__name__)


@pytest.mark.parametrize(
    "text", ["data: [\n", "data: 2026-13-45\n", "\x7f", "[" * 5000], ids=["open", "date", "control", "deep"]
)
def test_the_command_line_says_what_is_wrong_with_params(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["clha", "summary"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "error: params.yaml is not valid YAML" in capsys.readouterr().err


def test_a_cell_longer_than_pythons_csv_reads_by_default_is_read(tmp_path: Path) -> None:
    tally = Tally()
    feed(of_name("votes: sheet"), SHEET.replace("Which?", "x" * 200_000).encode(), tally, tmp_path)
    assert (tally.read, tally.faults) == (1, {})
