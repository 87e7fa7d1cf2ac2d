"""What every source of raw rows offers."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from clha_core.errors import UserError

SourceSplitName = Literal["train", "test"]
SOURCE_SPLITS: tuple[SourceSplitName, ...] = ("train", "test")

# Subsets become folder names, parts of row ids and text in reports.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Caches of DVC (cache.type) and of the hub, which files may be links into: only who has a file can name it by its hash.
_BY_HASH = re.compile(r".*/(files/md5/[0-9a-f]{2}/[0-9a-f]{30}|blobs/([0-9a-f]{40}|[0-9a-f]{64}))")


class Unreadable(NamedTuple):
    """A line that is not a JSON object."""

    text: str
    detail: str


class RawRow(NamedTuple):
    """A row as it came; `number` counts the lines or rows of its file or split, from 0."""

    subset: str
    split: SourceSplitName
    number: int
    raw: Mapping[str, Any] | Unreadable


@dataclass(frozen=True)
class SourceSplit:
    """One split of one subset, not read yet.

    Attributes:
        subset: its name; None where the rows name their own.
        rows: how many `read` will give at most, for the progress bar.
        read: yields the rows.
    """

    subset: str | None
    split: SourceSplitName
    rows: int
    read: Callable[[], Iterator[RawRow]]


def check_subset_name(name: str) -> str:
    """Return `name` if it is plain: letters, digits, dot, dash, underscore.

    Raises:
        UserError: it is not, for example a path.
    """
    if not _PLAIN_NAME.fullmatch(name):
        raise UserError(
            f"The subset name {name!r} is not plain: use letters, digits, '.', '-' and '_', and start with a letter "
            "or digit (data.subsets and the folder names)."
        )
    return name


def require_inside(file: Path, folder: Path) -> None:
    """Raises:
    UserError: the file is, or lies behind, a link that leads out of the folder. Data that others packed could so
        name any file of this machine, whose lines would end in the quarantine.
    """
    target = file.resolve()
    if not target.is_relative_to(folder.resolve()) and not _BY_HASH.fullmatch(target.as_posix()):
        raise UserError(
            f"{file} is a link out of {folder}, to {target}: put the file itself there, or name the folder that it is "
            "in (which may itself be a link)."
        )


def limited(rows: int, limit: int) -> int:
    """`rows`, at most `limit`; a limit of 0 is none."""
    return min(rows, limit) if limit else rows
