"""Several processes train like one: DDP and FSDP over gloo, real `accelerate launch`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("train_worker.py")
STEPS = 3


def train(folder: Path, *launcher: str, **settings: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and final weights of a training of 8 rows a step."""
    folder.mkdir()
    settings = {
        "out": str(folder),
        "rows": 24,
        "rows_per_step": 8,
        "max_steps": STEPS,
        "save_strategy": "no",
        "reward_gap": 1.0,
        "tokens_per_micro_batch": 150,
        **settings,
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, *launcher, str(WORKER), json.dumps(settings)],
        env=environment,
        cwd=WORKER.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    log = json.loads((folder / "log.json").read_text())
    return [line["loss"] for line in log if "loss" in line], load_file(folder / "model" / "model.safetensors")


def launcher(folder: Path, config: str, processes: int) -> tuple[str, ...]:
    """`accelerate launch` with one of our configs, for processes on the CPU."""
    values = yaml.safe_load((WORKER.parents[1] / "configs" / config).read_text())
    values |= {"num_processes": processes, "mixed_precision": "no", "main_process_port": 0}
    if values["distributed_type"] == "MULTI_GPU":
        values |= {"distributed_type": "MULTI_CPU", "use_cpu": True}
    file = folder / "accelerate.yaml"
    file.write_text(yaml.safe_dump(values))
    return ("-m", "accelerate.commands.launch", "--config_file", str(file))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], dict[str, torch.Tensor]]:
    return train(tmp_path_factory.mktemp("alone") / "run")


def same(one: tuple[list[float], dict[str, torch.Tensor]], other: tuple[list[float], dict[str, torch.Tensor]]) -> None:
    assert len(one[0]) == STEPS
    assert other[0] == pytest.approx(one[0], rel=2e-4)  # the log rounds to four digits
    assert one[1].keys() == other[1].keys()
    for name, weight in one[1].items():
        torch.testing.assert_close(other[1][name], weight, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("processes", [2, 4])
def test_ddp_trains_like_one_process(
    tmp_path: Path, alone: tuple[list[float], dict[str, torch.Tensor]], processes: int
) -> None:
    same(alone, train(tmp_path / "run", *launcher(tmp_path, "ddp.yaml", processes)))


def test_fsdp_trains_like_one_process_and_no_process_holds_the_whole_model(
    tmp_path: Path, alone: tuple[list[float], dict[str, torch.Tensor]]
) -> None:
    same(alone, train(tmp_path / "run", *launcher(tmp_path, "fsdp2.yaml", 2)))
    whole = sum(weight.numel() for weight in alone[1].values())
    for process in (0, 1):
        own = int((tmp_path / "run" / f"parameters-{process}").read_text())
        assert own <= 0.6 * whole
