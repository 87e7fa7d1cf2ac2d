"""Stage `candidates`: responses beyond the two of the data, from files, policies and endpoints."""

import json
from pathlib import Path

import pyarrow as pa

from clha_core import paths
from clha_core.candidates.augment import augment
from clha_core.data.tables import read_table, write_table
from clha_core.params import Params
from clha_core.stages.context import prepare_torch, write_metrics

SPLITS = ("train", "validation")


def run(params: Params, root: Path = Path()) -> None:
    """Write data/candidates and metrics/candidates.json. Without any generator rows pass through as they are.

    Raises:
        UserError: a generator cannot be used.
    """
    if params.candidates.policy.models:
        prepare_torch(params, params.candidates.policy.seed)
    tables = [read_table(root / paths.INGESTED / f"{split}.parquet") for split in SPLITS]
    out = root / paths.CANDIDATES
    out.mkdir(parents=True, exist_ok=True)
    with (out / paths.QUARANTINE).open("w", encoding="utf-8", newline="\n") as quarantine:
        augmented = augment(pa.concat_tables(tables), params, root, root / paths.KEPT_CANDIDATES, quarantine)
    start = 0
    for split, table in zip(SPLITS, tables, strict=True):
        write_table(augmented.table.slice(start, table.num_rows), out / f"{split}.parquet")
        start += table.num_rows
    origins = json.dumps(augmented.origins, indent=2, sort_keys=True, ensure_ascii=False)
    (out / "origins.json").write_text(origins + "\n", encoding="utf-8")
    write_metrics(augmented.to_metrics(), root / paths.CANDIDATES_METRICS)
