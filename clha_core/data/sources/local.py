"""Rows of a folder in HH layout: <path>/<subset>/{train,test}.jsonl, or .jsonl.gz; UTF-8, one JSON object a line."""

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from clha_core.data.sources.source import (
    SOURCE_SPLITS,
    RawRow,
    SourceSplit,
    SourceSplitName,
    Unreadable,
    check_subset_name,
    limited,
    require_inside,
)
from clha_core.errors import UserError
from clha_core.params import DataParams

# Against files made to fill memory and disk (SECURITY.md). HH's longest line has 0.03 MiB; packed it is a third.
MAX_LINE_BYTES = 8 << 20
MAX_EXPANSION = 100  # unpacked bytes for each packed one...
ALWAYS_EXPANDED_BYTES = 16 << 20  # ...after these
_SHOWN_BYTES = 1_000  # of a line that is too long, in the quarantine
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1 << 20


def local_splits(data: DataParams) -> list[SourceSplit]:
    """The files below `data.path`; every one is read through once to count its lines.

    Raises:
        UserError: no such folder, subset or file, or a file that cannot be unpacked.
    """
    splits = []
    for subset, folder in _subset_folders(data):
        for split in SOURCE_SPLITS:
            file = _split_file(folder, split)
            if file is not None:
                require_inside(file, Path(data.path))
                limit = data.max_train_rows if split == "train" else data.max_test_rows
                splits.append(_source_split(subset, split, file, limit))
    return splits


def _subset_folders(data: DataParams) -> list[tuple[str, Path]]:
    root = Path(data.path)
    if not root.is_dir():
        raise UserError(f"data.path {root} is not a folder: put your data there, or set data.path.")
    below = {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir() and _has_rows(folder)}
    if _has_rows(root):
        if below:
            raise UserError(
                f"{root} holds train or test files itself and in {', '.join(below)}: move the first into a "
                "subset folder."
            )
        below = {root.absolute().name: root}
    if not below:
        raise UserError(
            f"{root} holds no preference data: expected {root}/<subset>/train.jsonl and test.jsonl (or .jsonl.gz)."
        )
    missing = [name for name in data.subsets if name not in below]
    if missing:
        raise UserError(
            f"{root} has no subset {', '.join(missing)} with a train or test file; it has {', '.join(below)}."
        )
    return [(check_subset_name(name), below[name]) for name in sorted(data.subsets or below)]


def _has_rows(folder: Path) -> bool:
    return any(_split_file(folder, split) is not None for split in SOURCE_SPLITS)


def _split_file(folder: Path, split: SourceSplitName) -> Path | None:
    files = [file for file in (folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz") if file.is_file()]
    if len(files) > 1:
        raise UserError(f"{files[0]} and {files[1]} are both there: remove one.")
    return files[0] if files else None


def _source_split(subset: str, split: SourceSplitName, file: Path, limit: int) -> SourceSplit:
    def read() -> Iterator[RawRow]:
        rows = (RawRow(subset, split, number, raw) for number, raw in json_lines(file))
        return islice(rows, limit or None)

    return SourceSplit(subset, split, limited(count_lines(file), limit), read)


def json_lines(file: Path) -> Iterator[tuple[int, Mapping[str, Any] | Unreadable]]:
    """The lines of a file that are not blank, with their numbers from 0."""
    return ((number, _parse_line(line)) for number, line in enumerate(_lines(file)) if _too_long(line) or line.strip())


def _lines(file: Path) -> Iterator[bytes]:
    """Lines; only the beginning of one that is too long."""
    with _open(file) as stream:
        if stream.peek(3)[:3] == _BYTE_ORDER_MARK:  # type: ignore[attr-defined]
            stream.read(3)
        while line := stream.readline(MAX_LINE_BYTES + 1):
            yield line
            rest = line if _too_long(line) else b""
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(_CHUNK_BYTES)


def _too_long(line: bytes) -> bool:
    return len(line) > MAX_LINE_BYTES


def _open(file: Path) -> BinaryIO:
    if file.suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(file))
    return file.open("rb")


def count_lines(file: Path) -> int:
    """Lines of a file, which is read through for it.

    Raises:
        UserError: it cannot be read or unpacked, or unpacks to more than MAX_EXPANSION times its size.
    """
    count, last, expanded = 0, b"\n", 0
    try:
        largest = max(ALWAYS_EXPANDED_BYTES, MAX_EXPANSION * file.stat().st_size)
        with _open(file) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                count += chunk.count(b"\n")
                last = chunk[-1:]
                expanded += len(chunk)
                if expanded > largest and file.suffix == ".gz":
                    raise UserError(
                        f"{file} unpacks to more than {MAX_EXPANSION} times its size, as no dialogues do: it may be "
                        f"made to fill the disk. If you trust it, unpack it yourself: gunzip {file}"
                    )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{file} is damaged or cut off ({error}): get the file again; `gzip -t {file}` tells whether it is whole."
        ) from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    return count + (last != b"\n")


def _parse_line(line: bytes) -> Mapping[str, Any] | Unreadable:
    if _too_long(line):
        shown = line[:_SHOWN_BYTES].decode("utf-8", errors="backslashreplace")
        return Unreadable(shown, f"The line is longer than {MAX_LINE_BYTES} bytes; this is how it begins.")
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        shown = line.rstrip(b"\r\n").decode("utf-8", errors="backslashreplace")
        return Unreadable(shown, f"The line is not UTF-8: byte {error.start} cannot be decoded.")
    try:
        row = json.loads(text, parse_constant=_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        return Unreadable(text, f"The line is not JSON: {error}.")
    if not isinstance(row, dict):
        return Unreadable(text, f"The line is not a JSON object but a {type(row).__name__}.")
    return row


def _number(text: str) -> float:
    """A number that can be written again: Python reads NaN, and 1e999 as infinity, which are not JSON."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value
