"""Responses from files: JSONL, one object a line, that names a row by its id or by its prompt."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from clha_core.candidates.pool import Draft
from clha_core.data.dialogue import RowError, Turn, parse_prompt
from clha_core.data.sources.local import count_lines, json_lines
from clha_core.data.sources.source import Unreadable, require_inside
from clha_core.data.splits import prompt_key
from clha_core.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz")


class LineReason(StrEnum):
    """Why a line is quarantined."""

    UNREADABLE_LINE = "unreadable_line"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BAD_PROMPT = "bad_prompt"
    NO_SUCH_ROW = "no_such_row"


class LineError(ValueError):
    """A line that cannot be used; `reason` is for machines, `detail` a sentence for people."""

    def __init__(self, reason: LineReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass
class FileReport:
    """What became of every line of all files."""

    rows_in: int = 0
    accepted: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def to_metrics(self) -> dict[str, Any]:
        """Plain numbers for a metrics file."""
        if self.rows_in != self.accepted + self.quarantined:
            raise RuntimeError(f"lines were lost: {self}")
        return {
            "rows_in": self.rows_in,
            "accepted": self.accepted,
            "quarantined": self.quarantined,
            "reasons": dict(self.reasons),
        }


class RowIndex:
    """Finds rows by id and by prompt."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._by_id: dict[str, int] = {}
        self._by_prompt: dict[bytes, list[int]] = {}
        for number, row in enumerate(rows):
            self._by_id[row["id"]] = number
            self._by_prompt.setdefault(prompt_key(row["prompt"], seed=0), []).append(number)

    def with_id(self, row_id: str) -> list[int]:
        """Numbers of the rows, none or one."""
        return [self._by_id[row_id]] if row_id in self._by_id else []

    def with_prompt(self, prompt: list[Turn]) -> list[int]:
        """Numbers of all rows that have this prompt, turn by turn."""
        try:
            return self._by_prompt.get(prompt_key(prompt, seed=0), [])
        except UnicodeEncodeError:  # half a surrogate pair, which no ingested prompt has
            return []


def candidate_files(folder: Path) -> list[Path]:
    """The files of a folder that hold responses, by name.

    Raises:
        UserError: no such folder, a link out of it, an unreadable name, or two files that would share a name in the
            reports.
    """
    if not folder.is_dir():
        raise UserError(f"candidates.files {folder} is not a folder: make it, or name the one with your JSONL files.")
    files = sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and path.is_file())
    for file in files:
        require_inside(file, folder)
        if not file.name.isprintable():  # it becomes the origin of responses, in tables and reports
            raise UserError(f"{folder} has a file with an unreadable name, {file.name!r}: rename it.")
    names = Counter(map(file_name, files))
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"{folder} has {twice[0]}.jsonl and {twice[0]}.jsonl.gz: remove one.")
    return files


def file_name(file: Path) -> str:
    """The name less its suffix."""
    return file.name.removesuffix(".gz").removesuffix(".jsonl")


def read_file(file: Path, index: RowIndex, report: FileReport, quarantine: TextIO) -> Iterator[Draft]:
    """The responses of a file; lines that cannot be used are written to `quarantine`, and all are counted.

    Raises:
        UserError: the file cannot be read or unpacked.
    """
    count_lines(file)
    for number, raw in json_lines(file):
        report.rows_in += 1
        try:
            rows, responses = _parse(raw, index)
        except LineError as error:
            report.quarantined += 1
            report.reasons[error.reason] += 1
            _set_aside(file.name, number, raw, error, quarantine)
        else:
            report.accepted += 1
            yield from (Draft(row, response) for row in rows for response in responses)


def _parse(raw: Mapping[str, Any] | Unreadable, index: RowIndex) -> tuple[list[int], list[str]]:
    if isinstance(raw, Unreadable):
        raise LineError(LineReason.UNREADABLE_LINE, raw.detail)
    responses = raw.get("responses", [raw["response"]] if "response" in raw else None)
    if responses is None:
        raise LineError(LineReason.MISSING_FIELD, 'The line has neither "response" nor "responses".')
    if not isinstance(responses, list) or not all(isinstance(response, str) for response in responses):
        raise LineError(LineReason.WRONG_TYPE, '"response" must be text, "responses" a list of texts.')
    return _rows(raw, index), responses


def _rows(raw: Mapping[str, Any], index: RowIndex) -> list[int]:
    if raw.get("id") is not None:
        if not isinstance(raw["id"], str):
            raise LineError(LineReason.WRONG_TYPE, '"id" must be text.')
        rows = index.with_id(raw["id"])
    elif raw.get("prompt") is not None:
        try:
            rows = index.with_prompt(parse_prompt(raw["prompt"]))
        except RowError as error:
            raise LineError(LineReason.BAD_PROMPT, error.detail) from None
    else:
        raise LineError(LineReason.MISSING_FIELD, 'The line has neither "id" nor "prompt".')
    if not rows:
        raise LineError(LineReason.NO_SUCH_ROW, "No row of train or validation has this id or prompt.")
    return rows


def _set_aside(
    file: str, number: int, raw: Mapping[str, Any] | Unreadable, error: LineError, quarantine: TextIO
) -> None:
    record = {
        "file": file,
        "line": number + 1,
        "reason": error.reason,
        "detail": error.detail,
        "raw": raw.text if isinstance(raw, Unreadable) else raw,
    }
    line = json.dumps(record, ensure_ascii=False, sort_keys=True)
    # Half a surrogate pair cannot be encoded; its backslash form is what JSON calls it anyway.
    quarantine.write(line.encode("utf-8", errors="backslashreplace").decode("utf-8") + "\n")
