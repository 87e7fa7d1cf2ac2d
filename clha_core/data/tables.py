"""Preference rows as Parquet: the schema, a writer that holds few rows in memory, and a reader that checks."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clha_core.data.dialogue import Preference
from clha_core.errors import UserError

SCHEMA = pa.schema(
    {
        "id": pa.string(),  # subset/split of the source/row number there
        "subset": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "responses": pa.list_(pa.string()),  # chosen, rejected, augmented ones
        "sources": pa.list_(pa.string()),  # of the responses: "chosen", "rejected", "augmented"
    }
)
# The ingested columns, and where each response comes from: "data", or a name that origins.json describes.
CANDIDATES_SCHEMA = SCHEMA.append(pa.field("origins", pa.list_(pa.string())))
# The same, with the columns of candidates ranked by `rewards`, best first.
RESCORED_SCHEMA = CANDIDATES_SCHEMA.append(pa.field("rewards", pa.list_(pa.float64())))
_ROWS_PER_BATCH = 2_000


class PreferenceWriter:
    """Writes rows to one Parquet file, in batches; a context manager.

    The same rows give the same bytes. A file without rows is written too.
    """

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._batch: list[tuple[str, str, Preference]] = []
        self.rows = 0

    def add(self, row_id: str, subset: str, preference: Preference) -> None:
        """Append a row."""
        self._batch.append((row_id, subset, preference))
        self.rows += 1
        if len(self._batch) == _ROWS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        columns = {
            "id": [row_id for row_id, _, _ in self._batch],
            "subset": [subset for _, subset, _ in self._batch],
            "prompt": [preference.prompt for _, _, preference in self._batch],
            "responses": [preference.responses for _, _, preference in self._batch],
            "sources": [preference.sources for _, _, preference in self._batch],
        }
        self._writer.write_table(pa.table(columns, schema=SCHEMA))
        self._batch.clear()

    def __enter__(self) -> "PreferenceWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._batch:
            self._flush()
        self._writer.close()


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table to `path`; the same rows give the same bytes."""
    write_tables([table], table.schema, path)


def write_tables(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write tables one after the other to `path`; the same rows give the same bytes, however they are cut."""
    pending = schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables:
            pending = pa.concat_tables([pending, table])
            while pending.num_rows >= _ROWS_PER_BATCH:
                writer.write_table(pending.slice(length=_ROWS_PER_BATCH).combine_chunks())
                pending = pending.slice(_ROWS_PER_BATCH)
        if pending.num_rows:
            writer.write_table(pending.combine_chunks())


def read_schema(path: Path) -> pa.Schema:
    """The schema a Parquet file really has.

    Raises:
        UserError: no such file, or not Parquet.
    """
    try:
        return pq.read_schema(path)
    except FileNotFoundError:
        raise UserError(f"{path} is not here: `dvc repro` makes it, with all that it needs.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def read_table(path: Path, schema: pa.Schema = SCHEMA) -> pa.Table:
    """Read a table of preference rows, ingested or (by `schema`) with added candidates or rescored.

    Raises:
        UserError: no such file, not Parquet, or of another schema.
    """
    return pa.Table.from_batches(read_batches(path, schema), schema=schema)


def read_rows(path: Path, schema: pa.Schema = SCHEMA) -> list[dict[str, Any]]:
    """All rows of a file, as dictionaries; raises as `read_table` does."""
    return read_table(path, schema).to_pylist()


def labelled_pair(row: Mapping[str, Any]) -> tuple[str, str]:
    """The responses of an ingested row that people preferred and rejected."""
    responses = dict(zip(row["sources"], row["responses"], strict=True))
    return responses["chosen"], responses["rejected"]


def read_batches(path: Path, schema: pa.Schema = SCHEMA) -> Iterator[pa.RecordBatch]:
    """Read a table of preference rows a batch at a time.

    Raises:
        UserError: as for `read_table`.
    """
    if not read_schema(path).equals(schema):
        raise UserError(f"{path} has other columns than expected: run the stage that writes it again.")
    try:
        # With its buffer, pyarrow holds the whole file after some batches.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            yield from file.iter_batches(_ROWS_PER_BATCH)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is not a readable Parquet file ({error}): run the ingest stage again.")
