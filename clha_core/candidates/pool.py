"""Rows whose candidates grow: what is offered is added, or dropped for a reason that is counted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from clha_core.data.dialogue import Reason, RowError, parse_prompt

DATA = "data"


class Outcome(StrEnum):
    """What becomes of a generated response."""

    ADDED = "added"
    DUPLICATE = "duplicate"  # but for whitespace, another candidate of the row
    EMPTY = "empty"
    UNFINISHED = "unfinished"  # ended by the limit of tokens, in the middle of what it says
    ROLE_MARKER = "role_marker"  # would read as several turns
    INVALID_TEXT = "invalid_text"  # cannot be written as UTF-8
    SURPLUS = "surplus"  # the row is full
    FAILED = "failed"  # nothing came


@dataclass(frozen=True)
class Draft:
    """A response to be a candidate of row number `row`; `failure` names why there is none."""

    row: int
    text: str = ""
    finished: bool = True
    failure: str | None = None


class Pool:
    """Candidates of rows, each with its origin.

    Args:
        rows: of CANDIDATES_SCHEMA; their lists are added to.
        limit: candidates of a row, at most.
    """

    def __init__(self, rows: list[dict[str, Any]], limit: int) -> None:
        self.rows = rows
        self.generated: Counter[str] = Counter()  # by origin
        self.outcomes: dict[str, Counter[str]] = {}
        self.failures: dict[str, Counter[str]] = {}
        self._limit = limit
        self._seen = [{_normalised(response) for response in row["responses"]} for row in rows]

    def room(self, row: int) -> int:
        """How many more candidates a row takes."""
        return max(0, self._limit - len(self.rows[row]["responses"]))

    def take(self, drafts: Iterable[Draft], origin: str) -> None:
        """Add or drop what a generator made."""
        outcomes = self.outcomes.setdefault(origin, Counter())
        for draft in drafts:
            self.generated[origin] += 1
            outcomes[self._place(draft, origin)] += 1
            if draft.failure is not None:
                self.failures.setdefault(origin, Counter())[draft.failure] += 1

    def _place(self, draft: Draft, origin: str) -> Outcome:
        text = draft.text.strip()
        if draft.failure is not None:
            return Outcome.FAILED
        if not text:
            return Outcome.EMPTY
        if not draft.finished:
            return Outcome.UNFINISHED
        try:
            text.encode()
            parse_prompt([{"role": "assistant", "content": text}])
        except UnicodeEncodeError:
            return Outcome.INVALID_TEXT
        except RowError as error:
            if error.reason is not Reason.MARKER_IN_CONTENT:
                raise
            return Outcome.ROLE_MARKER
        normalised = _normalised(text)
        if normalised in self._seen[draft.row]:
            return Outcome.DUPLICATE
        if not self.room(draft.row):
            return Outcome.SURPLUS
        self._seen[draft.row].add(normalised)
        row = self.rows[draft.row]
        row["responses"].append(text)
        row["sources"].append("augmented")
        row["origins"].append(origin)
        return Outcome.ADDED

    def to_metrics(self) -> dict[str, dict[str, Any]]:
        """By origin: how many responses were generated, what became of them, and failures by reason."""
        lost = [origin for origin, outcomes in self.outcomes.items() if outcomes.total() != self.generated[origin]]
        if lost:
            raise RuntimeError(f"responses were lost: {lost}, {self.generated}, {self.outcomes}")
        return {
            origin: {"generated": self.generated[origin]}
            | {outcome.value: outcomes[outcome] for outcome in Outcome}
            | {"failures": dict(self.failures.get(origin, {}))}
            for origin, outcomes in self.outcomes.items()
        }


def _normalised(text: str) -> str:
    return " ".join(text.split())
