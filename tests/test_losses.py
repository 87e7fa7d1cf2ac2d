"""The losses against golden float64 values, and the properties they must have."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clha_core.losses import clha_loss, pro_loss

GOLDEN_FILE = Path(__file__).resolve().parents[2] / "shared" / "golden" / "clha_losses.json"
GOLDEN = json.loads(GOLDEN_FILE.read_text()) if GOLDEN_FILE.exists() else []


def float64(values: list[list[float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_batch(seed: int, batch: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean_logps = -3 * torch.rand(batch, n, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 50, (batch, n), generator=generator)
    rewards = 4 * torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return mean_logps, mean_logps * lengths, rewards


shapes = {"seed": st.integers(0, 10_000), "batch": st.integers(1, 6), "n": st.integers(2, 5)}


@pytest.mark.skipif(not GOLDEN, reason="../shared/golden is not beside this checkout")
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_losses_equal_the_golden_values(case: dict) -> None:
    mean_logps, sum_logps, rewards = (float64(case[key]) for key in ("mean_logp", "sum_logp", "rewards"))
    parameters = {key: case[key] for key in ("margin", "reward_gap", "sft_weight")}

    loss = clha_loss(mean_logps, sum_logps, rewards, **parameters)

    expected = case["expected"]
    for part in ("contrastive", "sft", "total"):
        assert getattr(loss, part).item() == pytest.approx(expected[part], abs=1e-9), part
    if "pro" in expected:
        assert pro_loss(mean_logps, rewards).item() == pytest.approx(expected["pro"], abs=1e-9)


def test_one_unmasked_pair_by_hand() -> None:
    loss = clha_loss(float64([[-1.0, -2.0]]), float64([[-10.0, -8.0]]), float64([[5.0, 1.0]]), margin=3.0)
    assert loss.contrastive.item() == pytest.approx(-2.0 + 1.0 + 3.0)
    assert loss.sft.item() == pytest.approx(0.05 * 10.0)


def test_pairs_of_similar_reward_do_not_train() -> None:
    mean_logps = float64([[-1.0, -2.0]]).requires_grad_()
    loss = clha_loss(mean_logps, float64([[-10.0, -8.0]]), float64([[1.0, 0.5]]), reward_gap=0.5)
    assert loss.contrastive.item() == 0.0
    (gradient,) = torch.autograd.grad(loss.contrastive, mean_logps)
    assert not gradient.any()


def test_a_best_answer_with_a_bad_reward_is_not_imitated() -> None:
    sum_logps = float64([[-10.0, -8.0], [-6.0, -4.0]])
    rewards = float64([[0.0, -5.0], [2.0, -5.0]])
    loss = clha_loss(sum_logps / 10, sum_logps, rewards, sft_weight=1.0)
    assert loss.sft.item() == pytest.approx(6.0 / 2)


@given(**shapes)
def test_the_order_of_candidates_does_not_matter(seed: int, batch: int, n: int) -> None:
    tensors = random_batch(seed, batch, n)
    permutation = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = tuple(tensor[:, permutation] for tensor in tensors)
    assert clha_loss(*shuffled).total.item() == pytest.approx(clha_loss(*tensors).total.item(), abs=1e-12)
    assert pro_loss(shuffled[0], shuffled[2]).item() == pytest.approx(
        pro_loss(tensors[0], tensors[2]).item(), abs=1e-12
    )


@given(**shapes)
def test_gradient_raises_the_better_and_lowers_the_worse_of_a_violated_pair(seed: int, batch: int, n: int) -> None:
    mean_logps, sum_logps, rewards = random_batch(seed, batch, 2)
    mean_logps.requires_grad_()
    loss = clha_loss(mean_logps, sum_logps, rewards, margin=float(n), reward_gap=0.0, sft_weight=0.0)
    (gradient,) = torch.autograd.grad(loss.total, mean_logps)
    best = rewards.argmax(dim=1, keepdim=True)
    assert (gradient.gather(1, best) <= 0).all()
    assert (gradient.gather(1, 1 - best) >= 0).all()


@settings(deadline=None, max_examples=25)  # the first call of gradcheck is slow
@given(**shapes)
def test_gradients_match_finite_differences(seed: int, batch: int, n: int) -> None:
    mean_logps, sum_logps, rewards = random_batch(seed, batch, n)
    mean_logps.requires_grad_()
    sum_logps.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: clha_loss(m, s, rewards, margin=0.731).total, (mean_logps, sum_logps))
    assert torch.autograd.gradcheck(lambda m: pro_loss(m, rewards), (mean_logps,))


@pytest.mark.parametrize("shape", [(2, 1), (3,), (1, 2, 2)])
def test_anything_but_two_or_more_candidates_a_row_is_refused(shape: tuple[int, ...]) -> None:
    tensor = torch.zeros(shape)
    with pytest.raises(ValueError, match="n >= 2"):
        clha_loss(tensor, tensor, tensor)


def test_tensors_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        clha_loss(torch.zeros(2, 3), torch.zeros(2, 2), torch.zeros(2, 3))
