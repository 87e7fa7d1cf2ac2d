"""Shards: the rows that are scored together, and the files that keep their scores until the stage has ended.

A shard is named by a hash of everything its scores depend on. So whoever starts the stage again, after whatever
crash, finds what is scored and scores the rest.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

import clha_core
from clha_core.data.tables import CANDIDATES_SCHEMA, read_batches
from clha_core.digest import file_digest, folder_digest
from clha_core.replacing import replacing
from clha_core.waiting import held

if TYPE_CHECKING:  # brings torch, which a worker imports only when it loads a model
    from clha_core.scoring.rater import RaterSpec

Rewards = list[list[float]]

# Part of the result: the rows of a shard share batches, and batch mates can change the last bit of a score.
ROWS_PER_SHARD = 512

# What computes a score, files and folders. Scores that a bug left behind are not taken up by the code that mended it.
SCORING_CODE = (
    "data/splits.py",
    "models",
    "packing",
    "padding.py",
    "rescoring",
    "scoring",
    "tokenization.py",
)


@dataclass(frozen=True)
class Shard:
    """Rows with their candidates, and the name of their scores."""

    key: str
    rows: list[dict[str, Any]]


def scorer_digest(spec: "RaterSpec", threads: int) -> str:
    """sha256 over all that a score depends on but its shard's rows: model, format, threads, this code and torch's."""
    package = Path(str(clha_core.__file__)).parent
    parts = [spec.digest, str(threads), *(version(name) for name in ("torch", "transformers"))]
    code = [package / name for name in SCORING_CODE]
    parts += [folder_digest(path) if path.is_dir() else file_digest(path) for path in code]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_shards(path: Path, scorer: str) -> Iterator[Shard]:
    """The rows of a table of candidates in their order, a shard at a time; at most two shards are in memory.

    Every shard has ROWS_PER_SHARD rows but the last, which takes the remainder too: a few rows alone say little
    about a reward model (two scores can be equal by chance), and shards are checked one by one.

    Args:
        scorer: scorer_digest().

    Raises:
        UserError: as read_batches().
    """
    pending: list[dict[str, Any]] = []
    for batch in read_batches(path, CANDIDATES_SCHEMA):
        pending += batch.to_pylist()
        while len(pending) >= 2 * ROWS_PER_SHARD:
            yield _shard(pending[:ROWS_PER_SHARD], scorer)
            del pending[:ROWS_PER_SHARD]
    if pending:
        yield _shard(pending, scorer)


def _shard(rows: list[dict[str, Any]], scorer: str) -> Shard:
    digest = hashlib.sha256(scorer.encode())
    for row in rows:
        digest.update(json.dumps([row["id"], row["prompt"], row["responses"]]).encode())
    return Shard(digest.hexdigest(), rows)


class ShardStore:
    """A folder of finished shards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str) -> Rewards | None:
        """The rewards of a shard's rows; None where there are none, or their file is not what was written."""
        try:
            checksum, body = self._file(key).read_bytes().split(b"\n", 1)
        except (FileNotFoundError, ValueError):
            return None
        return json.loads(body) if checksum == _checksum(key, body) else None

    def write(self, key: str, rewards: Rewards) -> None:
        """Keep the rewards of a shard. The file is there in full, on the disk, or not at all."""
        body = json.dumps(rewards).encode()
        with replacing(self._file(key)) as partial:
            partial.write_bytes(_checksum(key, body) + b"\n" + body)

    def clear(self) -> None:
        """Remove all shards, also those that an earlier run with other settings left behind."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _checksum(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + body).hexdigest().encode()


@contextmanager
def shard_store(folder: Path) -> Iterator[ShardStore]:
    """Have the shards of `folder` for oneself; while another process has them, say so and wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(FileLock(folder.with_suffix(".lock")), "another process is rescoring here"):
        yield ShardStore(folder)
