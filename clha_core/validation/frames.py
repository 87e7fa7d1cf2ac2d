"""The ingested tables as flat pandas frames: what the expectations look at.

No dialogue text gets into a frame, only lengths, roles and hashes, so none can reach a report.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from clha_core import paths
from clha_core.data.tables import SCHEMA, read_batches, read_schema
from clha_core.errors import UserError


@dataclass(frozen=True)
class Frames:
    """The data set seen three ways.

    Attributes:
        rows: one row per preference row of all splits.
        splits: one row per split: sizes, shares and mean lengths.
        dataset: one row: figures over all splits.
        reasons: quarantined rows by reason.
    """

    rows: pd.DataFrame
    splits: pd.DataFrame
    dataset: pd.DataFrame
    reasons: Counter[str]


def schema_frame(ingested: Path) -> pd.DataFrame:
    """One row per split file: the Arrow type of each of its columns, as text; missing columns are null."""
    records = []
    for split in paths.SPLITS:
        types = {field.name: field.type for field in read_schema(ingested / f"{split}.parquet")}
        # Equal types can have different names inside lists; those are written the way SCHEMA has them.
        shown = {
            name: str(
                SCHEMA.field(name).type if name in SCHEMA.names and kind.equals(SCHEMA.field(name).type) else kind
            )
            for name, kind in types.items()
        }
        records.append({"split": split, **shown})
    return pd.DataFrame(records)


def load_frames(ingested: Path) -> Frames:
    """Flatten the tables and the quarantine below `ingested`.

    Raises:
        UserError: a file is missing or is not what ingest writes.
    """
    rows = pd.concat(
        [
            _flatten(batch, split)
            for split in paths.SPLITS
            for batch in chain(read_batches(ingested / f"{split}.parquet"), [_NO_ROWS])
        ],
        ignore_index=True,
    )
    rows["repeats_row"] = rows.duplicated(["split", "prompt_key", "responses_key"])
    rows["splits_with_prompt"] = _splits_with_prompt(rows)
    reasons = _quarantine_reasons(ingested / paths.QUARANTINE)
    total = len(rows) + reasons.total()
    dataset = pd.DataFrame(
        {
            "rows": [len(rows)],
            "quarantined": [reasons.total()],
            "quarantined_share": [reasons.total() / total if total else 0.0],
            "leaked_prompts": [rows.loc[rows["splits_with_prompt"] > 1, "prompt_key"].nunique()],
            "longer_chosen_share": [_longer_chosen(rows).mean()],
        }
    )
    return Frames(rows, _split_figures(rows), dataset, reasons)


def _flatten(batch: pa.RecordBatch, split: str) -> pd.DataFrame:
    prompt, responses, sources = (_Lists(batch[name]) for name in ("prompt", "responses", "sources"))
    roles, contents = (pc.struct_field(prompt.values, name) for name in ("role", "content"))
    turn_chars, response_chars = _lengths(contents), _lengths(responses.values)
    turns = pc.binary_join_element_wise(roles, contents, "\x1f", null_handling="replace")
    joined_roles = _interned(prompt.join(roles, " "))
    return pd.DataFrame(
        {
            "id": batch["id"].to_pandas(),
            "subset": _interned(batch["subset"].to_pylist()),
            "split": _interned([split] * len(batch)),
            "prompt_turns": prompt.counts,
            "roles": joined_roles,
            "last_role": _interned(text.rpartition(" ")[2] for text in joined_roles),
            "prompt_chars": prompt.reduce(np.add, turn_chars),
            "shortest_turn_chars": prompt.reduce(np.minimum, turn_chars),
            "n_candidates": responses.counts,
            "distinct_responses": responses.distinct(_hashes(responses.values)),
            "chosen_chars": responses.element(response_chars, 0),
            "rejected_chars": responses.element(response_chars, 1),
            "shortest_response_chars": responses.reduce(np.minimum, response_chars),
            "longest_response_chars": responses.reduce(np.maximum, response_chars),
            "sources": _interned(sources.join(sources.values, ",")),
            "n_sources": sources.counts,
            "prompt_key": _hashes(prompt.join(turns, "\x1e")),
            "responses_key": _hashes(responses.join(responses.values, "\x1e")),
        }
    )


class _Lists:
    """A list column as its flat values and the bounds of each row's; a null list has none."""

    def __init__(self, column: pa.ListArray) -> None:
        offsets = column.offsets.to_numpy()
        self._starts = offsets[:-1] - offsets[0]
        self._offsets = offsets - offsets[0]
        self.values = column.values[offsets[0] : offsets[-1]]
        self.counts = np.diff(offsets)

    def reduce(self, function: np.ufunc, values: np.ndarray) -> np.ndarray:
        """One number a row; 0 for empty lists."""
        reduced = np.zeros(len(self.counts), dtype=np.int32)
        filled = self.counts > 0
        if filled.any():
            reduced[filled] = function.reduceat(values, self._starts[filled])
        return reduced

    def element(self, values: np.ndarray, position: int) -> np.ndarray:
        """The value at a position of each list; 0 where the list is too short."""
        taken = np.zeros(len(self.counts), dtype=np.int32)
        long_enough = self.counts > position
        taken[long_enough] = values[self._starts[long_enough] + position]
        return taken

    def distinct(self, values: np.ndarray) -> np.ndarray:
        """How many different values each list has."""
        row = np.repeat(np.arange(len(self.counts)), self.counts)
        unique = pd.DataFrame({"row": row, "value": values}).drop_duplicates()
        return np.bincount(unique["row"], minlength=len(self.counts))

    def join(self, values: pa.Array, separator: str) -> np.ndarray:
        """The texts of each list as one text."""
        known = pc.fill_null(values, "")
        lists = pa.ListArray.from_arrays(pa.array(self._offsets, pa.int32()), known)
        return pc.binary_join(lists, separator).to_numpy(zero_copy_only=False)


def _interned(texts: Iterable[str | None]) -> pd.Series:
    """Each different text in memory once: whole columns have a handful of them."""
    return pd.Series([None if text is None else sys.intern(text) for text in texts], dtype=object)


def _lengths(texts: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int32)


def _hashes(texts: pa.Array | np.ndarray) -> np.ndarray:
    values = texts if isinstance(texts, np.ndarray) else texts.to_numpy(zero_copy_only=False)
    return pd.util.hash_array(values.astype(object))


_NO_ROWS = pa.RecordBatch.from_pylist([], schema=SCHEMA)


def _splits_with_prompt(rows: pd.DataFrame) -> np.ndarray:
    """In how many splits the prompt of each row is."""
    keys = rows["prompt_key"].to_numpy()
    found = np.zeros(len(keys), dtype=np.int32)
    for split in paths.SPLITS:
        found += np.isin(keys, np.unique(keys[rows["split"] == split]))
    return found


def _longer_chosen(rows: pd.DataFrame) -> pd.Series:
    """1 where the chosen response is longer than the rejected one, 0 where shorter; a tie counts half."""
    difference = rows["chosen_chars"] - rows["rejected_chars"]
    return (difference > 0) + (difference == 0) / 2


def _split_figures(rows: pd.DataFrame) -> pd.DataFrame:
    by_split = rows.assign(longer_chosen=_longer_chosen(rows)).groupby("split")
    figures = pd.DataFrame(
        {
            "rows": by_split.size(),
            "prompts": by_split["prompt_key"].nunique(),
            "duplicate_share": by_split["repeats_row"].mean(),
            "longer_chosen_share": by_split["longer_chosen"].mean(),
            "mean_candidates": by_split["n_candidates"].mean(),
            "mean_prompt_turns": by_split["prompt_turns"].mean(),
            "mean_prompt_chars": by_split["prompt_chars"].mean(),
            "mean_chosen_chars": by_split["chosen_chars"].mean(),
            "mean_rejected_chars": by_split["rejected_chars"].mean(),
        }
    )
    counts = {"rows": int, "prompts": int}
    return figures.reindex(list(paths.SPLITS), fill_value=0).rename_axis("split").reset_index().astype(counts)


def _quarantine_reasons(path: Path) -> Counter[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            return Counter(json.loads(line)["reason"] for line in lines)
    except FileNotFoundError:
        raise UserError(f"{path} is not here: `dvc repro` makes it, with all that it needs.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not what ingest writes: run the ingest stage again.") from None
