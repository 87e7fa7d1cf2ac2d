"""A training of the pipeline from end to end: the best checkpoint, adapters, the model card, going on after a crash."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TrainerCallback

from clha_core import CLHATrainer
from clha_core.digest import folder_digest
from clha_core.errors import UserError
from clha_core.models.loading import load_policy, load_trained
from clha_core.tracking.interface import NullTracker
from clha_core.training.align import align, last_checkpoint, training_config

TOKENIZER = tiny.tokenizer()
LENGTHS = {"max_length": 96, "max_prompt_length": 64}


class StopAfter(TrainerCallback):
    """Ends the process' part of a training as a crash would: no final save, checkpoints left behind."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def run_align(
    folder: Path, make_params: Callable, monkeypatch: pytest.MonkeyPatch, crash_after: int | None, rank: int = 0
) -> Path:
    params = make_params({"train.max_steps": 8, "train.eval_steps": 2, "train.rows_per_step": 2, "train.epochs": 2})
    params.train.lora.rank = rank
    params.policy.max_length, params.policy.max_prompt_length = LENGTHS.values()
    start = tiny.save(tiny.llama(TOKENIZER), TOKENIZER, folder / "start")
    args = training_config(params.train, params.policy, folder / "run")
    args.disable_tqdm = True
    rows = Dataset.from_list(tiny.random_rows(12))

    def go() -> None:
        align(
            start,
            params.policy,
            rows,
            rows.select(range(4)),
            args,
            params.train,
            NullTracker(),
            out=folder / "out",
            curves=folder / "curves.csv",
        )

    if crash_after:
        with monkeypatch.context() as patch:
            original = CLHATrainer.__init__

            def with_crash(self: CLHATrainer, *positional: Any, callbacks: list, **named: Any) -> None:
                original(self, *positional, callbacks=[*callbacks, StopAfter(crash_after)], **named)

            patch.setattr(CLHATrainer, "__init__", with_crash)
            with pytest.raises(KeyboardInterrupt):
                go()
    go()
    return folder


def test_a_training_that_was_cut_off_ends_in_the_same_bytes(
    tmp_path: Path, make_params: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_align(tmp_path / "whole", make_params, monkeypatch, None)
    resumed = run_align(tmp_path / "resumed", make_params, monkeypatch, 5)
    assert folder_digest(whole / "out") == folder_digest(resumed / "out")
    assert (whole / "curves.csv").read_bytes() == (resumed / "curves.csv").read_bytes()
    assert not (resumed / "run").exists()


def test_the_best_checkpoint_is_chosen_by_validation_loss(
    tmp_path: Path, make_params: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_align(tmp_path, make_params, monkeypatch, None)
    curves = pd.read_csv(folder / "curves.csv")
    assert curves["eval_loss"].notna().sum() == 4
    assert not any("runtime" in column or "per_second" in column for column in curves.columns)
    assert "max_position_embeddings" in json.loads((folder / "out" / "config.json").read_text())
    assert not list((folder / "out").glob("*.bin"))


def test_an_adapter_ends_in_a_merged_checkpoint_and_beside_it_alone(
    tmp_path: Path, make_params: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    folder = run_align(tmp_path, make_params, monkeypatch, None, rank=4)
    assert sorted(path.name for path in (folder / "out" / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    merged = AutoModelForCausalLM.from_pretrained(folder / "out")
    adapted = PeftModel.from_pretrained(tiny.llama(TOKENIZER), str(folder / "out" / "adapter"))
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(merged(ids).logits, tiny.llama(TOKENIZER)(ids).logits, atol=1e-3)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes, the extra qlora, is not installed")
def test_an_adapter_trains_over_weights_in_four_bits_and_is_merged_into_whole_ones(
    tmp_path: Path, make_params: Callable
) -> None:
    changes = {"policy.quantization": "nf4", "train.max_steps": 2, "train.eval_steps": 1, "train.lora.rank": 4}
    params = make_params(changes)
    wide = LlamaConfig(
        **{**tiny.llama(TOKENIZER).config.to_dict(), "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(wide)  # blocks of four-bit weights are 64 wide
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = tiny.save(model, TOKENIZER, tmp_path / "start")
    rows = Dataset.from_list(tiny.random_rows(8))
    args = training_config(params.train, params.policy, tmp_path / "run")
    align(
        start,
        params.policy,
        rows,
        rows,
        args,
        params.train,
        NullTracker(),
        out=tmp_path / "out",
        curves=tmp_path / "curves.csv",
    )
    merged = load_policy(tmp_path / "out", dtype="float32")
    assert type(merged.model.layers[0].mlp.up_proj) is torch.nn.Linear
    after = merged.state_dict()
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])


def test_four_bits_without_an_adapter_are_refused(tmp_path: Path, make_params: Callable) -> None:
    params = make_params({"policy.quantization": "nf4"})
    with pytest.raises(UserError, match=r"set lora\.rank"):
        training_config(params.train, params.policy, tmp_path)


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_four_bits_without_their_package_say_what_to_install(tmp_path: Path, make_params: Callable) -> None:
    params = make_params({"policy.quantization": "nf4"})
    with pytest.raises(UserError, match=r"pip install 'clha\[qlora\]'"):
        load_trained(tmp_path, params.policy)


def test_a_model_card_says_how_the_model_was_trained(
    tmp_path: Path, make_params: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (run_align(tmp_path, make_params, monkeypatch, None) / "out" / "README.md").read_text()
    assert "# A language model trained with CLHA" in card
    assert "| rows_per_step | 2 |" in card


def test_a_checkpoint_that_a_crash_cut_off_is_passed_over(tmp_path: Path) -> None:
    for step, state in ((2, "{}"), (10, '{"half": '), (12, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert not (tmp_path / "checkpoint-12").exists()
