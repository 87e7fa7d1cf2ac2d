"""The stage `rescore` with a real reward model: the same outputs however it is run, and whatever it survived."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import tiny
import yaml
from test_flow_guard import until

from clha_core import paths
from clha_core.data.tables import CANDIDATES_SCHEMA, write_table
from clha_core.digest import folder_digest
from clha_core.params import Params
from clha_core.rescoring import shards
from clha_core.scoring.rater import Rater
from clha_core.stages import rescore

pytestmark = pytest.mark.slow
ROWS_PER_SHARD = 4
ROWS = {"train": 240, "validation": 24}
STAGE = f"""
from pathlib import Path
from clha_core.params import load_params
from clha_core.rescoring import shards
from clha_core.stages.rescore import run
shards.ROWS_PER_SHARD = {ROWS_PER_SHARD}
run(load_params(Path("params.yaml")))
"""


def project(folder: Path) -> Path:
    """A folder with the inputs of the stage."""
    (folder / paths.CANDIDATES).mkdir(parents=True)
    for seed, (split, count) in enumerate(ROWS.items()):
        rows = [{name: row[name] for name in CANDIDATES_SCHEMA.names} for row in tiny.random_rows(count, seed=seed)]
        write_table(
            pa.Table.from_pylist(rows, schema=CANDIDATES_SCHEMA), folder / paths.CANDIDATES / f"{split}.parquet"
        )
    made = tiny.tokenizer()
    tiny.save(tiny.llama_reward(made), made, folder / paths.REWARD_MODEL)
    return folder


def outputs(folder: Path) -> list[str]:
    """What the stage wrote."""
    metrics = (folder / paths.RESCORE_METRICS).read_text()
    return [folder_digest(folder / paths.RESCORED), folder_digest(folder / paths.RESCORE_REPORT), metrics]


def test_killed_with_two_workers_and_resumed_with_one_the_outputs_are_the_same(
    tmp_path: Path, make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", ROWS_PER_SHARD)
    params = make_params({"rescore.workers": 1})
    whole, killed = project(tmp_path / "whole"), project(tmp_path / "killed")
    rescore.run(params, whole)

    two = make_params({"rescore.workers": 2}).model_dump(mode="json", by_alias=True)
    (killed / "params.yaml").write_text(yaml.safe_dump(two))
    scratch = killed / paths.SCRATCH / "rescore"
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE],
        cwd=killed,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    until(lambda: len(list(scratch.glob("*.json"))) >= 5 or process.poll() is not None, seconds=120)
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    scored = len(list(scratch.glob("*.json")))
    assert not (killed / paths.RESCORE_METRICS).exists()

    rated = []
    rate = Rater.rate
    monkeypatch.setattr(Rater, "rate", lambda self, rows, description: rated.append(rows) or rate(self, rows, ""))
    rescore.run(params, killed)
    assert outputs(killed) == outputs(whole)
    assert len(rated) == sum(ROWS.values()) // ROWS_PER_SHARD - scored
    assert not scratch.exists(), "scores are kept although the stage has ended"
