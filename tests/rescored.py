"""Small rescored tables for the tests of the noise report."""

from typing import Any

import pyarrow as pa

from clha_core.data.tables import RESCORED_SCHEMA
from clha_core.rescoring.noise.pairs import Pairs, read_pairs


def row(index: int, chosen: float, rejected: float, *, subset: str = "helpful-base", **texts: str) -> dict[str, Any]:
    """A rescored row with a third, augmented candidate that is always the worst."""
    ranked = sorted(
        [("chosen", chosen), ("rejected", rejected), ("augmented", min(chosen, rejected) - 1)],
        key=lambda candidate: -candidate[1],
    )
    sources = [source for source, _ in ranked]
    return {
        "id": f"row-{index}",
        "subset": subset,
        "prompt": [{"role": "user", "content": texts.get("prompt", f"Question {index}?")}],
        "sources": sources,
        # Filled in only where tables have this column.
        "origins": [{"augmented": "a-model"}.get(source, "data") for source in sources],
        "rewards": [reward for _, reward in ranked],
        "responses": [
            texts.get(f"{source}_text", texts.get("response", f"{source} answer {index}")) for source in sources
        ],
    }


def pair(index: int, difference: float, **texts: str) -> dict[str, Any]:
    """A rescored row with the two labelled candidates alone."""
    whole = row(index, max(difference, 0.0), max(-difference, 0.0), **texts)
    lists = ("sources", "origins", "rewards", "responses")
    return whole | {name: whole[name][:2] for name in lists}


def batch(rows: list[dict[str, Any]], schema: pa.Schema = RESCORED_SCHEMA) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def pairs_of(rows: list[dict[str, Any]], rows_per_batch: int = 7) -> Pairs:
    return read_pairs(batch(rows[start : start + rows_per_batch]) for start in range(0, len(rows), rows_per_batch))


def pairs(*rewards: tuple[float, float]) -> Pairs:
    """Rows with these rewards of the chosen and of the rejected response."""
    return pairs_of([row(index, *both) for index, both in enumerate(rewards)])
