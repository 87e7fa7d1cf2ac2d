"""CLHATrainer: exact losses whatever the batches, TRL's conventions, methods, adapters."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from datasets import Dataset

from clha_core import CLHAConfig, CLHATrainer, clha_loss
from clha_core.errors import UserError
from clha_core.training.batches import Row, micro_batch
from clha_core.training.config import METHODS, NEEDS_REFERENCE
from clha_core.training.preference_data import Truncation, tokenize_preferences

TOKENIZER = tiny.tokenizer()
LENGTHS = {"max_length": 96, "max_prompt_length": 64}


def config(folder: Path, **changes: Any) -> CLHAConfig:
    settings: dict[str, Any] = {
        "rows_per_step": 4,
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


def tokenized(rows: list[dict], **changes: Any) -> list[Row]:
    args = CLHAConfig(output_dir="unused", **(LENGTHS | changes))
    return [Row(**row) for row in tokenize_preferences(Dataset.from_list(rows), TOKENIZER, args, "test")[0]]


def scores_alone(model: torch.nn.Module, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and sum of each candidate's log-probs, one at a time in float64, and the rewards; all (rows, n)."""
    sums = torch.stack(
        [
            torch.stack([logps_alone(model, row.prompts[0], response).sum() for response in row.responses])
            for row in rows
        ]
    )
    lengths = torch.tensor([[len(response) for response in row.responses] for row in rows])
    return sums / lengths, sums, torch.tensor([row.rewards for row in rows], dtype=torch.float64)


def logps_alone(model: torch.nn.Module, prompt: list[int], response: list[int]) -> torch.Tensor:
    """One candidate, no padding, float64."""
    logits = model.double()(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    positions = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    return torch.stack([logits[at, token] for at, token in zip(positions, response, strict=True)])


def test_the_eos_of_a_response_is_always_scored() -> None:
    rows = tokenized(tiny.random_rows(3))
    assert all(ids[-1] == TOKENIZER.eos_token_id for row in rows for ids in row.responses)
    batch = micro_batch(rows, 2, torch.device("cpu"))
    assert batch.lengths.tolist() == [[len(ids) for ids in row.responses] for row in rows]


@pytest.mark.parametrize("packing", ["trees", "padded"])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_loss_is_clha_loss_on_log_probs_of_one_candidate_at_a_time(tmp_path: Path, n: int, packing: str) -> None:
    rows = tiny.random_rows(6, n=n)
    expected = clha_loss(*scores_alone(tiny.llama(TOKENIZER), tokenized(rows))).total
    subject = trainer(tmp_path, rows, packing=packing)
    batch = subject.data_collator(subject.train_dataset)
    assert subject.compute_loss(subject.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def gradients(subject: CLHATrainer, rows: list[dict]) -> torch.Tensor:
    """Of one optimizer step on `rows`, before the optimizer: all of them in one vector."""
    subject.model.zero_grad()
    subject.create_optimizer_and_scheduler(1)
    batches = [
        subject.data_collator([subject.train_dataset[at] for at in range(start, start + subject.args.train_batch_size)])
        for start in range(0, len(rows), subject.args.train_batch_size)
    ]
    taken, totals = subject.get_batch_samples(iter(batches), len(batches), torch.device("cpu"))
    loss = sum(subject.training_step(subject.model, batch, totals) for batch in taken)
    return torch.cat([loss.reshape(1), *(parameter.grad.flatten() for parameter in subject.model.parameters())])


@pytest.mark.parametrize("method", METHODS)
def test_the_cut_into_micro_batches_changes_neither_loss_nor_gradient(tmp_path: Path, method: str) -> None:
    rows = tiny.random_rows(8, n=3, seed=5)
    rows[2] = tiny.random_rows(1, n=2, seed=6)[0]  # a ragged row
    settings = {"method": method, "reward_gap": 1.0}
    whole = gradients(trainer(tmp_path, rows, rows_per_step=8, **settings), rows)
    subject = trainer(tmp_path, rows, rows_per_step=8, tokens_per_micro_batch=150, **settings)
    assert len(subject._cut([Row(**row) for row in subject.train_dataset])) > 2
    by_tokens = gradients(subject, rows)
    subject = trainer(tmp_path, rows, per_device_train_batch_size=2, gradient_accumulation_steps=4, **settings)
    for other in (by_tokens, gradients(subject, rows)):
        assert other[0].item() == pytest.approx(whole[0].item(), rel=1e-6, abs=1e-6)
        assert torch.linalg.norm(other - whole) <= 1e-5 * torch.linalg.norm(whole)


def test_token_budget_batches_train_on_the_curve_of_fixed_batches(tmp_path: Path) -> None:
    rows = tiny.random_rows(24, n=2)
    curves = []
    for settings in (
        {"rows_per_step": 8, "tokens_per_micro_batch": 120},
        {"per_device_train_batch_size": 8},
    ):
        subject = trainer(tmp_path, rows, max_steps=9, save_strategy="no", reward_gap=0.5, **settings)
        subject.train()
        curves.append([line["loss"] for line in subject.state.log_history if "loss" in line])
    assert len(curves[0]) == 9
    assert curves[0] == pytest.approx(curves[1], rel=2e-4)  # the log rounds to four digits


def test_the_evaluation_loss_is_that_of_the_whole_split_whatever_its_batches(tmp_path: Path) -> None:
    rows = tiny.random_rows(11, n=3)
    losses = []
    for size in (11, 3):
        subject = trainer(tmp_path, rows, per_device_eval_batch_size=size, reward_gap=1.0)
        losses.append(subject.evaluate(subject.train_dataset)["eval_loss"])
    expected = clha_loss(*scores_alone(tiny.llama(TOKENIZER), tokenized(rows)), reward_gap=1.0).total.item()
    assert losses == pytest.approx([expected, expected], rel=1e-5)


def test_candidates_of_other_prompts_are_scored_behind_their_own(tmp_path: Path) -> None:
    (row,) = tiny.random_rows(1, n=3)
    other = [{"role": "user", "content": "a cat?"}]
    row["prompts"] = [row["prompt"], other, row.pop("prompt")]
    (encoded,) = tokenized([row])
    assert len(encoded.prompts) == 2
    assert encoded.prompt_of == [0, 1, 0]
    batch = micro_batch([encoded], 3, torch.device("cpu"))
    subject = trainer(tmp_path, [row] * 4)
    with torch.no_grad():
        sums = batch.dense(subject.scorer.sums(subject.model, batch.trees, batch.pack))
        model = tiny.llama(TOKENIZER)
        for slot, at in enumerate(encoded.prompt_of):
            alone = logps_alone(model, encoded.prompts[at], encoded.responses[slot]).sum().item()
            assert sums[0, slot].item() == pytest.approx(alone, abs=1e-4)


def test_the_gap_may_be_a_quantile_of_the_data(tmp_path: Path) -> None:
    rows = tiny.random_rows(40)
    subject = trainer(tmp_path, rows, reward_gap_quantile=0.25)
    assert subject.evaluate(subject.train_dataset)["eval_pairs/masked"] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("method", NEEDS_REFERENCE)
def test_reference_log_probs_are_those_of_the_start_and_are_kept(tmp_path: Path, method: str) -> None:
    rows = tiny.random_rows(6, n=3)
    settings = {"method": method, "reference_cache": str(tmp_path / "reference"), "save_strategy": "no"}
    _, sums, _ = scores_alone(tiny.llama(TOKENIZER), tokenized(rows))
    subject = trainer(tmp_path, rows, **settings)
    reference = torch.tensor(subject.train_dataset["reference"][:])
    torch.testing.assert_close(reference.double(), sums.detach(), atol=1e-4, rtol=1e-5)
    files = sorted((tmp_path / "reference").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    subject.train()  # the policy moves away, the reference stays
    again = trainer(tmp_path, rows, **settings)
    assert torch.equal(torch.tensor(again.train_dataset["reference"][:]), reference)
    assert [file.stat().st_mtime_ns for file in sorted((tmp_path / "reference").iterdir())] == before


def test_cached_reference_log_probs_of_another_model_are_refused(tmp_path: Path) -> None:
    rows = tiny.random_rows(4)
    folder = tmp_path / "reference"
    settings = {"method": "dpo", "reference_cache": str(folder)}
    trainer(tmp_path, rows, **settings)
    names = sorted(folder.iterdir())
    data = Dataset.from_list(rows)
    other = tiny.llama(TOKENIZER, seed=9)
    CLHATrainer(other, config(tmp_path, **settings), data, data.select(range(4)), processing_class=TOKENIZER)
    (of_the_other,) = set(folder.iterdir()) - set(names)
    names[0].write_bytes(of_the_other.read_bytes())
    with pytest.raises(UserError, match="another model or other data"):
        trainer(tmp_path, rows, **settings)


def test_an_adapter_trains_alone_and_the_rest_stays(tmp_path: Path) -> None:
    from peft import LoraConfig

    model = tiny.llama(TOKENIZER)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = Dataset.from_list(tiny.random_rows(8))
    subject = CLHATrainer(
        model,
        config(tmp_path, save_strategy="no"),
        data,
        processing_class=TOKENIZER,
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    subject.train()
    assert subject.scorer.trees
    for name, value in subject.model.get_base_model().state_dict().items():
        if "lora" not in name:
            assert torch.equal(value, before[name.replace("base_layer.", "")])
        elif "lora_B" in name:
            assert value.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
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
    assert row.rewards == [1.0, 0.0]
    assert TOKENIZER.decode(row.responses[0]) == " the mat<eos>"


def test_what_is_truncated_is_counted_and_nothing_is_dropped(tmp_path: Path) -> None:
    rows = tiny.random_rows(6)
    rows[3]["prompt"][0]["content"] = "a cat " * 60
    rows[4]["responses"][1] = "the mat " * 60
    subject = trainer(tmp_path, rows)
    assert subject.truncation["train"] == Truncation(rows=6, truncated_prompts=1, truncated_responses=1)
    assert subject.truncation["validation"] == Truncation(rows=4, truncated_prompts=1, truncated_responses=0)


def test_a_row_with_a_single_candidate_is_refused_with_its_id() -> None:
    rows = tiny.random_rows(3, n=2)
    rows[1] |= {"responses": ["alone"], "rewards": [1.0]}
    with pytest.raises(UserError, match=rows[1]["id"]):
        tokenized(rows)


def test_a_row_without_a_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="has no prompt"):
        tokenized([{"id": "x", "chosen": "a", "rejected": "b"}])


def test_a_reward_that_is_not_finite_is_refused_with_its_row_id() -> None:
    rows = tiny.random_rows(3)
    rows[1]["rewards"] = [float("nan"), 0.0]
    with pytest.raises(UserError, match=rows[1]["id"]):
        tokenized(rows)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    subject = trainer(tmp_path, tiny.random_rows(4), save_strategy="no")
    torch.nn.init.constant_(subject.model.lm_head.weight, float("nan"))
    with pytest.raises(UserError, match=r"loss is nan at step 0.*tiny/train/00000"):
        subject.train()


@pytest.mark.parametrize(
    "wrong", [{"method": "ppo"}, {"logp_normalisation": "avg"}, {"remove_unused_columns": True}], ids=str
)
def test_a_setting_that_would_be_ignored_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        config(tmp_path, **wrong)


@pytest.mark.parametrize(
    ("name", "value"), [("margin", -1.0), ("reward_gap", -0.1), ("sft_weight", float("nan")), ("beta", 0.0)]
)
def test_settings_out_of_bounds_are_refused_as_in_params_yaml(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"CLHAConfig: {name} is"):
        CLHAConfig(output_dir=str(tmp_path), **{name: value})
