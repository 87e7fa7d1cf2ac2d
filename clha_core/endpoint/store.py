"""Replies on disk, so that none is paid for twice. Killed at any moment, it has every reply that was added."""

import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from clha_core.endpoint.request import Reply
from clha_core.errors import UserError

_TABLE = (
    "CREATE TABLE IF NOT EXISTS replies "
    "(key TEXT, attempt INTEGER, reply TEXT, PRIMARY KEY (key, attempt)) WITHOUT ROWID"
)


class ReplyStore:
    """One SQLite file; a context manager. Several processes may use it at once.

    Raises:
        UserError: the file is not such a store.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=60)
        try:
            # A reply is in the log before add() returns: what ends this process does not undo it.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise UserError(f"{path}, where answers are kept, cannot be used ({error}): move it away.") from None

    def replies(self, key: str) -> list[Reply]:
        """What came back for a request so far, oldest first."""
        rows = self._connection.execute("SELECT reply FROM replies WHERE key = ? ORDER BY attempt", (key,))
        return [Reply(**json.loads(reply)) for (reply,) in rows]

    def add(self, key: str, attempt: int, reply: Reply) -> None:
        """Keep a reply; where another process was faster, its reply stays."""
        with self._connection:
            self._connection.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", (key, attempt, json.dumps(asdict(reply)))
            )

    def __enter__(self) -> "ReplyStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
