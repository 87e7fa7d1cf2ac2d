"""CLHATrainer: exact log-probs, TRL's conventions, the best checkpoint by validation, and going on after a crash."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from datasets import Dataset
from transformers import TrainerCallback

from clha_core import CLHAConfig, CLHATrainer, clha_loss
from clha_core.digest import folder_digest
from clha_core.errors import UserError
from clha_core.tracking.interface import NullTracker
from clha_core.training.align import align, training_config
from clha_core.training.logps import response_logps
from clha_core.training.preference_data import PreferenceCollator, tokenize_preferences

TOKENIZER = tiny.tokenizer()
LENGTHS = {"max_length": 96, "max_prompt_length": 64}


def config(folder: Path, **changes: Any) -> CLHAConfig:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
        **LENGTHS,
    }
    return CLHAConfig(output_dir=str(folder), **(settings | changes))


def trainer(folder: Path, rows: list[dict], **changes: Any) -> CLHATrainer:
    data = Dataset.from_list(rows)
    return CLHATrainer(
        tiny.llama(TOKENIZER), config(folder, **changes), data, data.select(range(4)), processing_class=TOKENIZER
    )


def tokenized(rows: list[dict]) -> list[dict]:
    args = CLHAConfig(output_dir="unused", **LENGTHS)
    return list(tokenize_preferences(Dataset.from_list(rows), TOKENIZER, args, "test"))


def logps_alone(model: torch.nn.Module, prompt: list[int], response: list[int]) -> torch.Tensor:
    """One candidate, no padding, float64."""
    logits = model.double()(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    positions = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    return torch.stack([logits[at, token] for at, token in zip(positions, response, strict=True)])


@pytest.mark.parametrize("pad_token_id", [TOKENIZER.pad_token_id, TOKENIZER.eos_token_id], ids=["pad", "pad is eos"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_log_probs_do_not_depend_on_batch_mates_or_padding(n: int, pad_token_id: int) -> None:
    rows = tokenized(tiny.random_rows(6, n=n))
    with torch.no_grad():
        sums, lengths = response_logps(tiny.llama(TOKENIZER), PreferenceCollator(pad_token_id)(rows))
        alone = [
            logps_alone(tiny.llama(TOKENIZER), row["prompt_ids"], ids) for row in rows for ids in row["response_ids"]
        ]
    for mean, expected in zip(sums / lengths, alone, strict=True):
        assert mean.item() == pytest.approx(expected.mean().item(), abs=1e-5)


def test_the_eos_of_a_response_is_always_scored() -> None:
    rows = tokenized(tiny.random_rows(3))
    batch = PreferenceCollator(TOKENIZER.eos_token_id)(rows)
    counted = batch["response_mask"].sum(-1).tolist()
    assert counted == [len(ids) for row in rows for ids in row["response_ids"]]
    assert all(ids[-1] == TOKENIZER.eos_token_id for row in rows for ids in row["response_ids"])


def test_the_loss_is_clha_loss_on_the_responses_log_probs(tmp_path: Path) -> None:
    rows = tiny.random_rows(4, n=3)
    subject = trainer(tmp_path, rows)
    batch = subject.data_collator(tokenized(rows))
    sums, lengths = response_logps(subject.model, batch)
    rewards = batch["rewards"]
    expected = clha_loss((sums / lengths).view_as(rewards), sums.view_as(rewards), rewards).total
    assert subject.compute_loss(subject.model, batch).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("method", ["clha", "sft", "pro"])
def test_training_lowers_the_loss_of_every_method(tmp_path: Path, method: str) -> None:
    subject = trainer(tmp_path, tiny.random_rows(4), method=method, max_steps=12, save_strategy="no")
    before = subject.evaluate()["eval_loss"]
    subject.train()
    assert subject.evaluate()["eval_loss"] < before


def test_logs_have_trl_names_and_the_parts_of_the_loss(tmp_path: Path) -> None:
    subject = trainer(tmp_path, tiny.random_rows(8), save_strategy="no")
    subject.train()
    line = subject.state.log_history[0]
    assert {
        "loss",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/accuracies",
        "rewards/margins",
        "logps/chosen",
        "logps/rejected",
        "loss/contrastive",
        "loss/sft",
        "pairs/masked",
        "sft/gated",
    } <= set(line)
    assert line["loss/contrastive"] + line["loss/sft"] == pytest.approx(line["loss"], abs=1e-3)
    assert line["rewards/chosen"] - line["rewards/rejected"] == pytest.approx(line["rewards/margins"], abs=1e-4)


def test_trl_columns_without_scores_train_on_the_label() -> None:
    rows = [{"prompt": "a cat", "chosen": "the mat", "rejected": "it was"}]
    (row,) = tokenized(rows)
    assert row["rewards"] == [1.0, 0.0]
    assert TOKENIZER.decode(row["response_ids"][0]) == " the mat<eos>"


def test_rows_with_different_numbers_of_candidates_are_refused() -> None:
    with pytest.raises(UserError, match="same number of candidates"):
        tokenized(tiny.random_rows(1, n=2) + tiny.random_rows(1, n=3))


def test_a_reward_that_is_not_finite_is_refused_with_its_row_id() -> None:
    rows = tiny.random_rows(3)
    rows[1]["rewards"] = [float("nan"), 0.0]
    with pytest.raises(UserError, match=rows[1]["id"]):
        tokenized(rows)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    subject = trainer(tmp_path, tiny.random_rows(4), save_strategy="no")
    torch.nn.init.constant_(subject.model.lm_head.weight, float("nan"))
    with pytest.raises(UserError, match="loss is nan at step 0"):
        subject.train()


@pytest.mark.parametrize(
    "wrong", [{"method": "simpo"}, {"logp_normalisation": "avg"}, {"remove_unused_columns": True}], ids=str
)
def test_a_setting_that_would_be_ignored_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        config(tmp_path, **wrong)


class StopAfter(TrainerCallback):
    """Ends the process' part of a training as a crash would: no final save, checkpoints left behind."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def run_align(folder: Path, make_params: Callable, monkeypatch: pytest.MonkeyPatch, crash_after: int | None) -> Path:
    params = make_params({"train.max_steps": 8, "train.eval_steps": 2, "train.batch_size": 2, "train.epochs": 2})
    args = training_config(params.train, params.policy, folder / "run")
    args.disable_tqdm = True
    rows = Dataset.from_list(tiny.random_rows(12))

    def go() -> None:
        align(
            tiny.llama(TOKENIZER),
            TOKENIZER,
            rows,
            rows.select(range(4)),
            args,
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
