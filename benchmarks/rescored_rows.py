"""Ingested rows with made-up rewards: what the rescore stage hands to the noise report, without a reward model."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clha_core.data.tables import RESCORED_SCHEMA, read_batches

# About what a reward model of HH says: it contradicts a third of the labels.
MEAN_DIFFERENCE = 0.6


def write_rescored(ingested: Path, out: Path, seed: int = 0) -> None:
    """Rank the candidates of a Parquet file of ingested rows by random rewards, a batch at a time."""
    chance = random.Random(seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(out, RESCORED_SCHEMA, compression="zstd") as writer:
        for batch in read_batches(ingested):
            rows = batch.to_pylist()
            for row in rows:
                rewards = [chance.gauss(MEAN_DIFFERENCE * (source == "chosen"), 1) for source in row["sources"]]
                order = sorted(range(len(rewards)), key=rewards.__getitem__, reverse=True)
                row |= {name: [row[name][place] for place in order] for name in ("responses", "sources")}
                row |= {"rewards": [rewards[place] for place in order], "origins": ["data"] * len(order)}
            writer.write_table(pa.Table.from_pylist(rows, schema=RESCORED_SCHEMA))
