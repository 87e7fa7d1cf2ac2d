"""Reward rescoring: rank each row by reward. Labels become ratings (METHOD.md, step 1)."""

from typing import Any

import pyarrow as pa

from clha_core.data.tables import RESCORED_SCHEMA


def rank_candidates(rows: list[dict[str, Any]], rewards: list[list[float]]) -> pa.Table:
    """Rows with their candidates sorted by descending reward; ties keep the order of the data (chosen first).

    Returns:
        A table of RESCORED_SCHEMA.
    """
    ranked = []
    for row, row_rewards in zip(rows, rewards, strict=True):
        order = sorted(range(len(row_rewards)), key=lambda index: -row_rewards[index])
        ranked.append(
            row
            | {name: [row[name][index] for index in order] for name in ("responses", "sources", "origins")}
            | {"rewards": [row_rewards[index] for index in order]}
        )
    return pa.Table.from_pylist(ranked, schema=RESCORED_SCHEMA)
