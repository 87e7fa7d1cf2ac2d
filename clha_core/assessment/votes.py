"""Raters' files, whichever way they voted: the page's JSON, a filled-in CSV, or Label Studio's JSON export."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clha_core.assessment.key import Key
from clha_core.assessment.label_studio import COMMENT, VOTE
from clha_core.errors import UserError
from clha_core.judging.labels import LABELS

VOTES_FORMAT = "clha-votes"
SKIP = "skip"
MAX_BYTES = 64 << 20  # a sheet has all the texts
# What may stand in a CSV file: the label in any case, or the page's key for it.
_TYPED = {SKIP: SKIP, "0": SKIP} | {label.casefold(): label for label in LABELS}
_TYPED |= {str(place): label for place, label in enumerate(LABELS, start=1)}


class Vote(NamedTuple):
    """One vote as found in a file; `vote` is empty where there is only a comment."""

    rater: str
    export: str
    item: str
    vote: str
    comment: str


@dataclass
class Ballot:
    """All of a rater's votes.

    `votes` and `comments` are by item; a vote is a label or "skip". `repeated` counts votes that were found twice,
    and the same both times.
    """

    rater: str
    votes: dict[str, str] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    repeated: int = 0


def read_ballots(files: Sequence[Path], key: Key) -> list[Ballot]:
    """Collect the votes of all files by rater, in order of the raters' names.

    Raises:
        UserError: a file that is none of the three kinds, or belongs to another export; an item that was not in the
            export; a vote that is no label; two different votes of one rater on one item; a rater without votes.
    """
    known = {item.item for item in key.items}
    width = max(map(len, known))
    ballots: dict[str, Ballot] = {}
    for file in files:
        for vote in _read(file, width):
            if vote.export != key.export:
                raise UserError(f"{file} belongs to another export than the key ({vote.export}, not {key.export}).")
            if vote.item not in known:
                raise UserError(f"{file}: there is no item {vote.item!r} in this export.")
            if vote.vote and vote.vote not in (*LABELS, SKIP):
                raise UserError(
                    f"{file}, item {vote.item}: {vote.vote!r} is no vote; use one of {', '.join(LABELS)}, skip."
                )
            _add(ballots.setdefault(vote.rater, Ballot(vote.rater)), vote, file)
    for ballot in ballots.values():
        if not ballot.votes:
            raise UserError(f"{ballot.rater} has not voted on anything: leave the file out.")
    if not ballots:
        raise UserError("there are no votes in these files.")
    return [ballots[rater] for rater in sorted(ballots)]


def _add(ballot: Ballot, vote: Vote, file: Path) -> None:
    if vote.comment:
        ballot.comments[vote.item] = vote.comment
    if not vote.vote:
        return
    before = ballot.votes.get(vote.item)
    if before is None:
        ballot.votes[vote.item] = vote.vote
    elif before == vote.vote:
        ballot.repeated += 1
    else:
        raise UserError(
            f"{file}: {ballot.rater} voted twice on item {vote.item}, {before!r} and {vote.vote!r}. "
            "Leave out the older file of the same rater, or rename one of two raters who use the same name."
        )


def _read(file: Path, width: int) -> Iterator[Vote]:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UserError(f"{file} is larger than {MAX_BYTES} bytes, as no file of votes is.")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f'{file} is not UTF-8 text: save the sheet as "CSV UTF-8".') from None
    try:
        if file.suffix.lower() == ".csv":
            yield from _sheet(text, file.stem, width)
            return
        content = json.loads(text)
        yield from _label_studio(content) if isinstance(content, list) else _page(content)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, csv.Error) as error:
        raise UserError(
            f"{file} is not a file of votes ({type(error).__name__}: {error}): expected what the page "
            "saves, the filled-in CSV, or Label Studio's JSON export."
        ) from None


def _page(content: dict[str, Any]) -> Iterator[Vote]:
    if content["format"] != VOTES_FORMAT:
        raise ValueError(f"format {content['format']!r}")
    rater = _name(content["rater"])
    for vote in content["votes"]:
        yield Vote(rater, content["export"], str(vote["item"]), vote["vote"] or "", vote["comment"].strip())


def _sheet(text: str, rater: str, width: int) -> Iterator[Vote]:
    """A CSV file, also with the semicolons or tabs that some spreadsheet programs write; its name is the rater's."""
    csv.field_size_limit(MAX_BYTES)  # a prompt may be longer than the default of 131072
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter):
        typed = row["vote"].strip()
        # A spreadsheet turns 001 into 1.
        yield Vote(
            rater, row["export"], row["item"].zfill(width), _TYPED.get(typed.casefold(), typed), row["comment"].strip()
        )


def _label_studio(tasks: list[dict[str, Any]]) -> Iterator[Vote]:
    for task in tasks:
        data = task["data"]
        for annotation in task["annotations"]:
            by = annotation["completed_by"]
            rater = _name(by["email"] if isinstance(by, dict) else f"Label Studio user {by}")
            values = {result["from_name"]: result["value"] for result in annotation["result"]}
            vote = values[VOTE]["choices"][0] if VOTE in values else ""
            comment = " ".join(values[COMMENT]["text"]).strip() if COMMENT in values else ""
            yield Vote(
                rater, data["export"], str(data["item"]), SKIP if annotation.get("was_cancelled") else vote, comment
            )


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not name:
        raise ValueError("no name of a rater")
    return name
