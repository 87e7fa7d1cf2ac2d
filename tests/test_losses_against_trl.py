"""DPO, IPO, SimPO and ORPO are TRL's, run as TRL ships them, on the same log-probs."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from clha_core.losses import dpo_loss, ipo_loss, orpo_loss, simpo_loss

TOKENIZER = tiny.tokenizer()
CPU = SimpleNamespace(device=torch.device("cpu"))


def apart(model: torch.nn.Module) -> torch.nn.Module:
    """With larger weights: fresh ones predict every token alike, and policy and reference would hardly differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def completion_logps(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums and lengths, (rows, 2) chosen first, of TRL's batch, which holds all chosen above all rejected ones."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logps = logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    mask = batch["completion_mask"][:, 1:]
    sums, lengths = (logps * mask).sum(1), mask.sum(1)
    return torch.stack(sums.chunk(2), dim=1), torch.stack(lengths.chunk(2), dim=1)


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"], ids=["dpo", "ipo"])
def test_dpo_and_ipo_equal_those_of_trls_trainer(loss_type: str, beta: float, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": row["prompt"][0]["content"],
            "chosen": " " + row["responses"][0],
            "rejected": " " + row["responses"][1],
        }
        for row in tiny.random_rows(6, seed=3)
    ]
    policy, reference = apart(tiny.llama(TOKENIZER, seed=0)).double(), apart(tiny.llama(TOKENIZER, seed=1)).double()
    arguments = DPOConfig(
        output_dir=str(tmp_path),
        loss_type=[loss_type],
        beta=beta,
        per_device_train_batch_size=6,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        policy, reference, arguments, train_dataset=Dataset.from_list(rows), processing_class=TOKENIZER
    )
    (batch,) = trainer.get_train_dataloader()
    with torch.no_grad():
        expected = trainer.compute_loss(policy, batch)
        sums, lengths = completion_logps(policy, batch)
        reference_sums, _ = completion_logps(reference, batch)

    rewards = torch.tensor([[1.0, 0.0]]).expand(6, 2)
    if loss_type == "ipo":
        loss = ipo_loss(sums / lengths, reference_sums / lengths, rewards, beta=beta)
        without_reference = ipo_loss(sums / lengths, sums / lengths, rewards, beta=beta)
    else:
        loss = dpo_loss(sums, reference_sums, rewards, beta=beta)
        without_reference = dpo_loss(sums, sums, rewards, beta=beta)

    assert loss.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)
    assert abs(loss.item() - without_reference.item()) > 1e-3, "policy and reference are too alike to tell"


pairs = {"seed": st.integers(0, 1000), "rows": st.integers(1, 6), "beta": st.floats(0.05, 3.0)}


def random_pairs(seed: int, rows: int) -> torch.Tensor:
    return -4 * torch.rand(rows, 2, generator=torch.Generator().manual_seed(seed)) - 0.01


@given(**pairs, gamma=st.floats(0.0, 2.0))
def test_simpo_equals_trls(seed: int, rows: int, beta: float, gamma: float) -> None:
    logps = random_pairs(seed, rows)
    settings = SimpleNamespace(
        alpha=0.0, accelerator=CPU, loss_type="simpo", simpo_gamma=gamma, beta=beta, label_smoothing=0.0
    )
    expected, _, _ = CPOTrainer.cpo_loss(settings, logps[:, 0], logps[:, 1])
    loss = simpo_loss(logps, torch.tensor([[1.0, 0.0]]).expand(rows, 2), beta=beta, gamma=gamma)
    assert loss.item() == pytest.approx(expected.mean().item(), abs=1e-6)


@given(**pairs)
def test_orpos_odds_ratio_equals_trls(seed: int, rows: int, beta: float) -> None:
    logps = random_pairs(seed, rows)
    expected, *_ = ORPOTrainer.odds_ratio_loss(SimpleNamespace(beta=beta, accelerator=CPU), logps[:, 0], logps[:, 1])
    rewards, lengths = torch.tensor([[1.0, 0.0]]).expand(rows, 2), torch.full((rows, 2), 5)
    loss = orpo_loss(logps, logps * 5, lengths, rewards, beta=beta)
    # TRL subtracts it from the likelihood term
    assert loss.odds_ratio.item() == pytest.approx(-expected.mean().item(), abs=1e-6)
