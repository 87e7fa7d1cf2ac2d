"""The Bradley-Terry training: its loss and figures are TRL's, and it learns what the labels say."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import RewardTrainer

from clha_core.models.loading import ModelSource
from clha_core.params import RewardModelParams
from clha_core.reward_models.training import BradleyTerryTrainer, bradley_terry_loss, train_reward_model
from clha_core.scoring.score import RewardScorer
from clha_core.scoring.text_formats import reward_input_ids

SEPARATE_PAD = tiny.tokenizer()
PAD_IS_EOS = tiny.tokenizer(pad="<eos>")


@pytest.fixture
def reward_params(make_params: Callable) -> Callable[..., RewardModelParams]:
    def make(**train: float) -> RewardModelParams:
        return make_params({f"reward_model.train.{key}": value for key, value in train.items()}).reward_model

    return make


@pytest.mark.parametrize("coefficient", [0.0, 0.01, 0.7])
def test_loss_and_figures_equal_those_of_trls_trainer(coefficient: float) -> None:
    logits = 3 * torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    theirs = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=coefficient),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    stacked = torch.cat([logits[:, :1], logits[:, 1:]])  # TRL holds all chosen above all rejected
    expected = RewardTrainer.compute_loss(theirs, lambda **_: SimpleNamespace(logits=stacked), {})

    ours = SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace()),
        center_rewards_coefficient=coefficient,
        _figures=defaultdict(list),
    )
    interleaved = SimpleNamespace(logits=logits.view(-1, 1))
    loss = BradleyTerryTrainer.compute_loss(ours, lambda **_: interleaved, {"pad_token_id": 0})

    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    figures = theirs._metrics["eval"]
    assert ours._figures == {
        name: [pytest.approx(value) for value in values] for name, values in figures.items() if name != "num_tokens"
    }


def test_the_loss_of_one_pair_by_hand() -> None:
    loss = bradley_terry_loss(torch.tensor([2.0]), torch.tensor([-1.0]), 0.5)
    assert loss.item() == pytest.approx(torch.log1p(torch.exp(torch.tensor(-3.0))).item() + 0.5)


def train(
    rows: list[dict], base: Path, made: PreTrainedTokenizerFast, params: RewardModelParams
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """A reward model from the checkpoint in `base`, and its log."""
    return train_reward_model(
        rows,
        ModelSource(str(base)),
        made,
        params,
        text_format="hh",
        max_length=192,
        bf16=False,
        seed=1,
        description="test",
    )


@pytest.mark.parametrize("made", [SEPARATE_PAD, PAD_IS_EOS], ids=["own pad", "pad is eos"])
def test_labels_are_learned_and_read_where_scores_are_read(
    made: PreTrainedTokenizerFast, reward_params: Callable[..., RewardModelParams], tmp_path: Path
) -> None:
    """Trained and rated texts pad differently; scores read at another token would have another mean margin."""
    rows = tiny.random_rows(12, seed=5)
    base = tiny.save(tiny.llama(made), made, tmp_path / "base")
    params = reward_params(max_steps=24, rows_per_step=12, rows_per_micro_batch=12, learning_rate=0.01)
    model, log = train(rows, base, made, params)
    scorer = RewardScorer(model, pad_token_id=made.pad_token_id, tokens_per_batch=200, max_length=192)
    rated = scorer.score(
        [[reward_input_ids(made, row["prompt"], text, "hh", 192) for text in row["responses"]] for row in rows]
    )
    last = log[-2]  # over the step before the end, whose learning rate is next to nothing
    assert {"loss", "accuracy", "margin", "mean_reward", "min_reward", "max_reward"} <= set(last)
    assert last["margin"] > 0.5
    assert sum(chosen - rejected for chosen, rejected in rated) / len(rated) == pytest.approx(last["margin"], abs=0.02)


def test_micro_batches_do_not_change_the_weights(
    reward_params: Callable[..., RewardModelParams], tmp_path: Path
) -> None:
    rows = tiny.random_rows(8, seed=6)
    base = tiny.save(tiny.llama(SEPARATE_PAD), SEPARATE_PAD, tmp_path / "base")
    weights = []
    for size in (8, 2):
        params = reward_params(max_steps=2, rows_per_step=8, rows_per_micro_batch=size, learning_rate=1e-3)
        model, _ = train(rows, base, SEPARATE_PAD, params)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=2e-5, rtol=0)
