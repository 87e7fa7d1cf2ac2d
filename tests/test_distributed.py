"""Several processes train like one: DDP, FSDP and ZeRO-3 over gloo, real `accelerate launch`."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from clha_core.digest import file_digest

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parent
STEPS = 3
EVERY_STEP = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
RUNS: dict[str, dict[str, Any]] = {
    "clha": {},
    "dpo": {"method": "dpo"},
    "ipo": {"method": "ipo"},
    # Of the worst evaluation, so that it is not the last one's.
    "best": {**EVERY_STEP, "load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True},
    "adapter": {"rank": 4},
}
SAVING = {"save_strategy": "steps", "save_steps": 1}
CUT_OFF: list[tuple[str, dict[str, Any]]] = [("cut_off", {**SAVING, "stop_after": 2}), ("cut_off", SAVING)]

# Accelerate leaves DeepSpeed out where it is told to use the CPU. Told of gloo, with no GPU in sight, it uses both.
ON_THE_CPU = {"ACCELERATE_USE_CPU": "false", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
OVER_GLOO = {"use_cpu": False, "ddp_backend": "gloo"}
ZERO3_RUNS: dict[str, dict[str, Any]] = {
    "clha": {"packing": "trees"},  # or an error
    "sft": {"method": "sft"},
    "dpo": RUNS["dpo"],
    "best": RUNS["best"],
    "adapter": RUNS["adapter"],
}
with_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed, the extra zero3, is not there")


def start_worker(worker: str, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    if "zero3.yaml" in str(launcher):
        environment |= ON_THE_CPU
    return subprocess.run(
        [sys.executable, *launcher, str(TESTS / worker), *arguments],
        env=environment,
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )


def run(worker: str, *arguments: str, launcher: tuple[str, ...] = ()) -> None:
    result = start_worker(worker, *arguments, launcher=launcher)
    assert result.returncode == 0, result.stderr[-4000:]


def train(folder: Path, model: Path, runs: list[tuple[str, dict[str, Any]]], launcher: tuple[str, ...] = ()) -> Path:
    """Trainings of 8 rows a step, one after another in the same processes, each in a folder of its name."""
    common = {
        "model": str(model),
        "rows": 24,
        "rows_per_step": 8,
        "max_steps": STEPS,
        "save_strategy": "no",
        "reward_gap": 1.0,
        "tokens_per_micro_batch": 150,
        "reference_cache": str(folder / "reference"),
    }
    trainings = [{**common, "out": str(folder / name), **settings} for name, settings in runs]
    run("train_worker.py", json.dumps(trainings), launcher=launcher)
    return folder


def launcher(folder: Path, config: str, processes: int) -> tuple[str, ...]:
    """`accelerate launch` with one of our configs, for processes on the CPU."""
    values = yaml.safe_load((TESTS.parent / "configs" / config).read_text())
    values |= {"num_processes": processes, "mixed_precision": "no", "main_process_port": 0}
    file = folder / f"{config}-{processes}"
    file.write_text(yaml.safe_dump(values))
    return ("-m", "accelerate.commands.launch", "--config_file", str(file))


def losses(folder: Path, name: str = "loss") -> list[float]:
    return [line[name] for line in json.loads((folder / "log.json").read_text()) if name in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(one: Path, other: Path) -> None:
    assert len(losses(one)) == STEPS
    assert losses(other) == pytest.approx(losses(one), rel=2e-4)  # the log rounds to four digits
    for name in ("eval_loss", "eval_rewards/margins", "eval_logps/chosen"):
        assert losses(other, name) == pytest.approx(losses(one, name), rel=2e-4)
    expected, found = weights(one), weights(other)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tiny.tokenizer()
    return tiny.save(tiny.llama(tokenizer), tokenizer, tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, start: Path) -> Path:
    """Each training in one process."""
    return train(tmp_path_factory.mktemp("alone"), start, list(RUNS.items()))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, start: Path) -> Path:
    """Each training in two processes that hold a half of the model; and one that is cut off and starts again."""
    folder = tmp_path_factory.mktemp("sharded")
    return train(folder, start, [*RUNS.items(), *CUT_OFF], launcher(folder, "fsdp2.yaml", 2))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose matrices DeepSpeed divides: it leaves weights of fewer than 100 000 numbers whole."""
    tokenizer = tiny.tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 320, "intermediate_size": 640, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(tokenizer)))
    return tiny.save(model, tokenizer, tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def wide_alone(tmp_path_factory: pytest.TempPathFactory, wide: Path) -> Path:
    """Each training of ZERO3_RUNS in one process; and one whose steps are of two fixed batches."""
    accumulated = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    runs = [*ZERO3_RUNS.items(), ("accumulated", accumulated)]
    return train(tmp_path_factory.mktemp("wide_alone"), wide, runs)


@pytest.fixture(scope="module")
def zero3(tmp_path_factory: pytest.TempPathFactory, wide: Path) -> Path:
    """The same in two processes under ZeRO-3; and one that is cut off and starts again."""
    folder = tmp_path_factory.mktemp("zero3")
    accumulated = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    runs = [*ZERO3_RUNS.items(), ("accumulated", accumulated), *CUT_OFF]
    return train(
        folder, wide, [(name, {**settings, **OVER_GLOO}) for name, settings in runs], launcher(folder, "zero3.yaml", 2)
    )


@pytest.mark.parametrize("processes", [2, 4])
def test_ddp_trains_like_one_process(tmp_path: Path, start: Path, alone: Path, processes: int) -> None:
    runs = [("clha", RUNS["clha"]), ("dpo", RUNS["dpo"]), ("best", RUNS["best"])]
    found = train(tmp_path, start, runs, launcher(tmp_path, "ddp.yaml", processes))
    assert len(list((found / "clha").glob("parameters-*"))) == processes
    same(alone / "clha", found / "clha")
    same(alone / "dpo", found / "dpo")
    same(alone / "best", found / "best")


@pytest.mark.parametrize("name", RUNS)
def test_fsdp_trains_like_one_process(alone: Path, sharded: Path, name: str) -> None:
    same(alone / name, sharded / name)


def test_fsdp_keeps_the_best_checkpoint_and_not_the_last(sharded: Path) -> None:
    best, last = (weights(sharded / name)["lm_head.weight"] for name in ("best", "clha"))
    assert not torch.allclose(best, last, atol=5e-4)


def test_under_fsdp_each_process_trains_a_half_of_the_weights(sharded: Path) -> None:
    whole = sum(weight.numel() for weight in weights(sharded / "clha").values())
    for process in (0, 1):
        own = int((sharded / "clha" / f"parameters-{process}").read_text())
        assert own <= 0.6 * whole


def test_fsdp_cut_off_and_resumed_ends_in_the_same_bits(sharded: Path) -> None:
    cut_off, whole = (file_digest(sharded / name / "model" / "model.safetensors") for name in ("cut_off", "clha"))
    assert cut_off == whole


def test_reference_log_probs_of_a_sharded_model_are_kept_under_the_names_of_the_whole_one(
    alone: Path, sharded: Path
) -> None:
    assert {file.name for file in (alone / "reference").iterdir()} == {
        file.name for file in (sharded / "reference").iterdir()
    }


def test_under_fsdp_no_process_ever_holds_the_whole_model(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it is read (from bfloat16, as float32) and scored with nor while it is written."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**18))  # what is freed is given back at once
    tokenizer = tiny.tokenizer()
    sizes = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 32, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(tokenizer)))
    model.bfloat16().save_pretrained(tmp_path / "large")
    for name, launch in (("alone", ()), ("sharded", launcher(tmp_path, "fsdp2.yaml", 2))):
        run("memory_worker.py", str(tmp_path / name), str(start), str(tmp_path / "large"), launcher=launch)

    def share(name: str, part: str) -> float:
        peaks = json.loads((tmp_path / f"{name}.json").read_text())
        return float(peaks[part] / (4 * model.num_parameters()))

    assert share("alone/peaks-0", "reading") > 0.95
    for process in ("sharded/peaks-0", "sharded/peaks-1"):
        assert share(process, "reading") < 0.85
        assert share(process, "writing") < 0.25
    written = weights(tmp_path / "sharded")
    assert all(torch.equal(written[name], weight.float()) for name, weight in model.state_dict().items())


@with_deepspeed
@pytest.mark.parametrize("name", [*ZERO3_RUNS, "accumulated"])
def test_zero3_trains_like_one_process(wide_alone: Path, zero3: Path, name: str) -> None:
    same(wide_alone / name, zero3 / name)


@with_deepspeed
def test_zero3_keeps_the_best_checkpoint_and_not_the_last(zero3: Path) -> None:
    best, last = (weights(zero3 / name)["lm_head.weight"] for name in ("best", "clha"))
    assert not torch.allclose(best, last, atol=5e-4)


@with_deepspeed
def test_under_zero3_each_process_holds_a_half_of_the_weights(zero3: Path) -> None:
    whole = sum(weight.numel() for weight in weights(zero3 / "clha").values())
    for process in (0, 1):
        assert int((zero3 / "clha" / f"parameters-{process}").read_text()) <= 0.51 * whole


@with_deepspeed
def test_zero3_cut_off_and_resumed_ends_in_the_same_bits(zero3: Path) -> None:
    cut_off, whole = (file_digest(zero3 / name / "model" / "model.safetensors") for name in ("cut_off", "clha"))
    assert cut_off == whole


@with_deepspeed
def test_reference_log_probs_under_zero3_are_kept_under_the_names_of_the_whole_model(
    wide_alone: Path, zero3: Path
) -> None:
    assert {file.name for file in (wide_alone / "reference").iterdir()} == {
        file.name for file in (zero3 / "reference").iterdir()
    }


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_zero3_without_deepspeed_says_what_to_install(tmp_path: Path) -> None:
    """Accelerate's own words: it starts none of our code then."""
    result = start_worker("train_worker.py", "[]", launcher=launcher(tmp_path, "zero3.yaml", 2))
    assert result.returncode != 0
    assert "pip3 install deepspeed" in result.stderr
