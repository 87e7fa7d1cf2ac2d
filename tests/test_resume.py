"""A training that is killed ends, when it is started again, in the very bytes that it would have ended in."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clha_core.digest import file_digest

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("train_worker.py")
STEPS = 40
SETTINGS = {
    "rows": 24,
    "rows_per_step": 4,
    "max_steps": STEPS,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 2,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "reward_gap": 1.0,
}


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps([{"out": str(folder), **SETTINGS}])],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def steps_saved(folder: Path) -> int:
    return max((int(path.name.rpartition("-")[2]) for path in folder.glob("run/checkpoint-*")), default=0)


def weights(folder: Path) -> str:
    return file_digest(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder).wait() == 0
    return folder


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_at_random_and_resumed_the_final_weights_are_bit_identical(
    whole: Path, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    kill_after = chance.randrange(2, STEPS - 8)
    process = start(tmp_path)
    while steps_saved(tmp_path) < kill_after and process.poll() is None:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.05))  # in the middle of a step, or of writing a checkpoint
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert not (tmp_path / "model").exists()

    assert start(tmp_path).wait() == 0
    assert weights(tmp_path) == weights(whole)
