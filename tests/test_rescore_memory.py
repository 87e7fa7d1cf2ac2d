"""Rescoring holds a few shards in memory, however long the table is."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clha_core.data.tables import CANDIDATES_SCHEMA

pytestmark = pytest.mark.slow
FEW, MANY = 2_000, 40_000
CHARS = 500  # of a prompt and of each of two responses
# A row as Python objects is larger than its text: this bounds what holding all rows would cost from below.
TEXT_OF_MANY = 3 * CHARS * MANY
RESCORE = """
import sys
from pathlib import Path
from raters import StandIn
from clha_core.rescoring.shards import ShardStore
from clha_core.rescoring.streamed import score_missing, write_ranked
from clha_core.rescoring.workers import rate_here
table = Path(sys.argv[1])
store = ShardStore(table.with_suffix(".shards"))
score_missing([table], store, "scorer", lambda missing, count: rate_here(StandIn(table.with_suffix(".log")), missing))
write_ranked(table, store, "scorer", table.with_suffix(".out"))
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def peak_bytes(folder: Path, rows: int) -> int:
    """Most memory that a process held that rescored `rows` rows."""
    table = folder / f"{rows}.parquet"
    with pq.ParquetWriter(table, CANDIDATES_SCHEMA, compression="zstd") as writer:
        for start in range(0, rows, FEW):
            block = [row(number) for number in range(start, start + FEW)]
            writer.write_table(pa.Table.from_pylist(block, schema=CANDIDATES_SCHEMA))
    printed = subprocess.run(
        [sys.executable, "-c", RESCORE, str(table)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert pq.read_metadata(table.with_suffix(".out")).num_rows == rows
    return int(printed) * 1024


def row(number: int) -> dict:
    texts = [f"{number} {name} ".ljust(CHARS, name) for name in "pcr"]
    prompt = [{"role": "user", "content": texts[0]}]
    return {
        "id": f"tiny/train/{number:06d}",
        "subset": "tiny",
        "prompt": prompt,
        "responses": texts[1:],
        "sources": ["chosen", "rejected"],
        "origins": ["data", "data"],
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_times_the_rows_need_no_more_memory(tmp_path: Path) -> None:
    more = peak_bytes(tmp_path, MANY) - peak_bytes(tmp_path, FEW)
    print(f"{MANY} rows needed {more / 2**20:.1f} MB more than {FEW}")
    assert more < TEXT_OF_MANY / 2
