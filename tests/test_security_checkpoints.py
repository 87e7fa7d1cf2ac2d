"""Checkpoints and data sets that bring code: none of it runs, and what is wrong with them is a sentence."""

import json
import os
import pickle
import resource
import shutil
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from datasets import Dataset
from mlflow.pyfunc import PythonModel
from safetensors.torch import save_file

from clha_core.data.ingest import ingest
from clha_core.errors import UserError
from clha_core.models.loading import load_policy, load_reward_model, load_tokenizer, write_pointer
from clha_core.tracking.interface import NullTracker
from clha_core.training.align import align, last_checkpoint, training_config

TOKENIZER = tiny.tokenizer()
MARK = "ran"


class Bomb:
    """Pickled, it makes a file of the name MARK in the working folder of whoever reads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARK,)


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The attack works where it is let: see the first test. In all others it must not have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    yield
    assert not (tmp_path / MARK).exists()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny.save(tiny.llama(TOKENIZER), TOKENIZER, tmp_path / "checkpoint")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def refused(checkpoint: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_policy(checkpoint, dtype="float32")
    return str(caught.value)


def test_the_attack_is_real(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / MARK).exists()
    (tmp_path / MARK).rmdir()


# --- pickles


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "model.pt", "adapter_model.bin"])
def test_pickled_weights_are_not_read(checkpoint: Path, name: str) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save(Bomb(), checkpoint / name)
    assert "Only safetensors are read" in refused(checkpoint)


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "pytorch_model.bin", "tokenizer.pkl"])
def test_a_pickle_beside_the_weights_is_left_alone(checkpoint: Path, name: str) -> None:
    torch.save(Bomb(), checkpoint / name)
    load_policy(checkpoint, dtype="float32")
    load_tokenizer(checkpoint)


def test_a_pickle_called_safetensors_is_a_bad_header(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    assert "SafetensorError" in refused(checkpoint)


class Crash(NullTracker):
    """Ends a training, as a crash would, once it has left a checkpoint."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if (self.run / "checkpoint-1" / "trainer_state.json").exists():
            raise KeyboardInterrupt


def train(folder: Path, make_params: Callable, tracker: NullTracker) -> None:
    params = make_params({"train.max_steps": 3, "train.eval_steps": 1, "train.rows_per_step": 2})
    params.policy.max_length, params.policy.max_prompt_length = 96, 64
    config = training_config(params.train, params.policy, folder / "run")
    config.disable_tqdm = True
    rows = Dataset.from_list(tiny.random_rows(6))
    align(
        *(folder / "start", params.policy, rows, rows, config, params.train, tracker),
        out=folder / "out",
        curves=folder / "curves.csv",
    )


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory, make_params: Callable) -> Path:
    """A training that a crash ended after its first step."""
    folder = tmp_path_factory.mktemp("cut-off")
    tiny.save(tiny.llama(TOKENIZER), TOKENIZER, folder / "start")
    with pytest.raises(KeyboardInterrupt):
        train(folder, make_params, Crash(folder / "run"))
    return folder


@pytest.mark.parametrize("file", ["optimizer.pt", "rng_state.pth", "scheduler.pt"])
def test_a_pickle_in_a_checkpoint_to_go_on_from_is_refused(
    cut_off: Path, tmp_path: Path, make_params: Callable, file: str
) -> None:
    shutil.copytree(cut_off, tmp_path / "training")
    checkpoint = last_checkpoint(tmp_path / "training" / "run")
    assert checkpoint is not None
    assert (checkpoint / file).exists()
    torch.save(Bomb(), checkpoint / file)
    with pytest.raises(UserError, match="holds more than a training leaves there"):
        train(tmp_path / "training", make_params, NullTracker())


# --- code


def test_code_of_a_checkpoint_runs_only_where_trust_remote_code_is_on(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / MARK)!r})\n", encoding="utf-8")
    change(checkpoint / "config.json", model_type="unheard-of", auto_map={"AutoConfig": "code.Config"})
    assert "trust_remote_code" in refused(checkpoint)
    assert not (tmp_path / MARK).exists()

    with pytest.raises(UserError):  # it has no class Config; by then it has run
        load_policy(checkpoint, dtype="float32", trust_remote_code=True)
    (tmp_path / MARK).rmdir()


def test_code_for_a_known_architecture_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / MARK)!r})\n", encoding="utf-8")
    auto_map = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    change(checkpoint / "config.json", auto_map=auto_map)
    change(checkpoint / "generation_config.json", custom_generate="code.py")
    load_policy(checkpoint, dtype="float32")


def test_code_of_a_tokenizer_does_not_run(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / MARK)!r})\n", encoding="utf-8")
    auto_map = {"AutoTokenizer": ["code.Tokenizer", None]}
    change(checkpoint / "tokenizer_config.json", tokenizer_class="Tokenizer", auto_map=auto_map)
    with pytest.raises(UserError, match="trust_remote_code"):
        load_tokenizer(checkpoint)


def test_every_preset_leaves_code_of_others_off(make_params: Callable) -> None:
    params = make_params()
    assert not params.policy.trust_remote_code
    assert not params.reward_model.trust_remote_code
    presets = (Path(__file__).parents[1] / "presets").glob("*.yaml")
    assert not [preset.name for preset in presets if "trust_remote_code" in preset.read_text(encoding="utf-8")]


def test_a_data_set_with_a_script_is_not_run(tmp_path: Path, make_params: Callable) -> None:
    (tmp_path / "set").mkdir()
    script = f"import os\nos.mkdir({str(tmp_path / MARK)!r})\n"
    (tmp_path / "set" / "set.py").write_text(script, encoding="utf-8")
    params = make_params({"data.source": "hub", "data.dataset": str(tmp_path / "set"), "data.subsets": []})
    with pytest.raises(UserError, match="scripts are no longer supported"):
        ingest(params, tmp_path / "out")


def test_a_pickled_model_of_the_registry_is_no_policy(tmp_path: Path) -> None:
    """Nothing here calls MLflow's load_model(), which unpickles; its folder is no checkpoint either."""
    import mlflow

    class Model(PythonModel):
        def predict(self, model_input: list[str]) -> list[str]:
            return model_input

    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Model(), pip_requirements=[])
    (tmp_path / "model" / "python_model.pkl").write_bytes(pickle.dumps(Bomb()))
    write_pointer(str(tmp_path / "model"), None, tmp_path / "base")
    assert "no model could be loaded" in refused(tmp_path / "base")
    root = Path(__file__).parents[1]
    code = [file for part in ("clha_core", "flows", "scoreboard") for file in (root / part).rglob("*.py")]
    calls = ("pickle.load", "torch.load(", "yaml.load(", "pyfunc.load_model", "shell=True", "eval(", "exec(")
    lines = {(file.name, line) for file in code for line in file.read_text(encoding="utf-8").splitlines()}
    found = {(name, call) for name, line in lines for call in calls if call in line and "weights_only=True" not in line}
    assert {(name, call) for name, call in found if call != "eval("} == set()


# --- files


@pytest.mark.parametrize("name", ["../outside.safetensors", "/dev/zero", "sub/x.safetensors", "weights.bin", 7])
def test_an_index_names_files_of_its_own_folder(checkpoint: Path, tmp_path: Path, name: Any) -> None:
    weights = tiny.llama(TOKENIZER).state_dict()
    (checkpoint / "model.safetensors").unlink()
    save_file(
        {key: value.clone() for key, value in weights.items()}, tmp_path / "outside.safetensors", {"format": "pt"}
    )
    torch.save(Bomb(), checkpoint / "weights.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert f"names {str(name)!r}: a checkpoint is read from" in refused(checkpoint)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map":' * 5000])
def test_a_broken_index_is_a_sentence(checkpoint: Path, content: str) -> None:
    (checkpoint / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    assert "no index of a checkpoint" in refused(checkpoint)


def header(tensors: bytes, data: bytes = bytes(8), length: int | None = None) -> bytes:
    return struct.pack("<Q", len(tensors) if length is None else length) + tensors + data


def tensor(shape: list[int], start: int = 0, end: int = 8) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        header(b"{}", length=2**62),
        header(b"{}", length=99_000_000),
        header(b"\xff" * 8),
        header(b'{"a":' + b"[" * 100_000),
        header(tensor([2**62, 4])),
        header(tensor([-1])),
        header(tensor([2**40]), b""),
        header(tensor([2], end=2**40)),
        header(tensor([2], start=8, end=0)),
    ],
    ids=["empty", "endless", "too long", "no text", "deep", "overflow", "negative", "no data", "past the end", "back"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes")
def test_a_bad_header_is_a_sentence_and_takes_no_memory(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "model.safetensors").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "SafetensorError" in refused(checkpoint)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize(
    "values",
    [
        {"num_attention_heads": 0},
        {"hidden_size": 64},
        {"hidden_size": "x"},
        {"hidden_act": "__import__"},
        {"attn_implementation": "somebody/kernel"},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_hostile_configuration_is_a_sentence(checkpoint: Path, values: dict[str, Any]) -> None:
    change(checkpoint / "config.json", **values)
    assert "no model could be loaded" in refused(checkpoint)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "[]", "null", '{"a":' * 5000])
def test_a_hostile_tokenizer_is_a_sentence(checkpoint: Path, file: str, content: str) -> None:
    (checkpoint / file).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="no tokenizer could be loaded"):
        load_tokenizer(checkpoint)


def test_a_reward_model_is_loaded_as_carefully(tmp_path: Path) -> None:
    folder = tiny.save(tiny.llama_reward(TOKENIZER), TOKENIZER, tmp_path / "reward")
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="Only safetensors"):
        load_reward_model(folder, dtype="float32")
