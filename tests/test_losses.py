"""The losses against golden float64 values and against sums by hand, and the properties of CLHA and PRO."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clha_core.losses import (
    ABSENT,
    clha_loss,
    dpo_loss,
    ipo_loss,
    orpo_loss,
    pro_loss,
    rrhf_loss,
    sft_loss,
    simpo_loss,
)

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


def test_without_the_reward_mask_similar_pairs_train() -> None:
    mean_logps = float64([[-1.0, -2.0]])
    loss = clha_loss(mean_logps, mean_logps, float64([[1.0, 0.5]]), margin=3.0, reward_gap=0.5, reward_mask=False)
    assert loss.contrastive.item() == pytest.approx(-2.0 + 1.0 + 3.0)


def test_the_margin_grows_with_rank_distance_unless_told_otherwise() -> None:
    # neighbours are 0.5 apart, the ends 1.0
    logps, rewards = float64([[-1.0, -1.5, -2.0]]), float64([[9.0, 5.0, 1.0]])
    scaled = clha_loss(logps, logps, rewards, margin=1.0)
    flat = clha_loss(logps, logps, rewards, margin=1.0, scale_margin=False)
    assert scaled.contrastive.item() == pytest.approx(0.5 + (2.0 - 1.0))
    assert flat.contrastive.item() == pytest.approx(0.5 + (1.0 - 1.0))


def test_without_the_gate_a_best_answer_with_a_bad_reward_is_imitated() -> None:
    sum_logps = float64([[-10.0, -8.0], [-6.0, -4.0]])
    rewards = float64([[0.0, -5.0], [2.0, -5.0]])
    loss = clha_loss(sum_logps / 10, sum_logps, rewards, sft_weight=1.0, gate_sft=False)
    assert loss.sft.item() == pytest.approx((10.0 + 6.0) / 2)


def test_the_contrastive_term_of_a_ragged_batch_by_hand() -> None:
    # row 1: pairs (3 - 1), (3 - 1) at distance 1 and (6 - 2) at distance 2; row 2: one pair, 3 + 1
    logps = float64([[-1.0, -2.0, -3.0], [0.0, -2.0, -1.0]])
    rewards = float64([[20.0, 10.0, 0.0], [ABSENT, 9.0, 0.0]])
    loss = clha_loss(logps, logps, rewards, margin=3.0)
    assert loss.contrastive.item() == pytest.approx((2.0 + 2.0 + 4.0) / 3 + 4.0)


def test_pro_of_a_ragged_batch_is_the_mean_of_its_rows() -> None:
    logps = float64([[-1.0, -2.0, -3.0], [0.0, -2.0, -1.0]])
    rewards = float64([[3.0, 1.0, 0.0], [ABSENT, 2.0, 0.0]])
    first, second = pro_loss(logps[:1], rewards[:1]), pro_loss(logps[1:, 1:], rewards[1:, 1:])
    assert pro_loss(logps, rewards).item() == pytest.approx((first.item() + second.item()) / 2)
    assert second.item() == pytest.approx(math.log(1 + math.exp(2 * (-1.0 + 2.0))), abs=1e-6)


def test_rrhf_sums_how_far_worse_candidates_are_likelier_by_hand() -> None:
    # ranks: -3, -1, -2; the two worse ones are likelier than the best by 2 and 1, and rightly ordered between them
    logps = float64([[-1.0, -3.0, -2.0], [-1.0, -2.0, 0.0]])
    rewards = float64([[1.0, 2.0, 0.0], [1.0, 0.0, ABSENT]])
    assert rrhf_loss(logps, rewards).item() == pytest.approx((2.0 + 1.0 + 0.0) / 2)


def test_rrhf_does_not_train_on_pairs_of_equal_reward() -> None:
    assert rrhf_loss(float64([[-3.0, -1.0]]), float64([[1.0, 1.0]])).item() == 0.0


def test_sft_is_the_likelihood_of_the_best_candidates_per_token() -> None:
    sum_logps, lengths = float64([[-10.0, -8.0], [-6.0, -4.0]]), torch.tensor([[5, 6], [2, 3]])
    assert sft_loss(sum_logps, lengths, float64([[0.0, 1.0], [1.0, 0.0]])).item() == pytest.approx(14.0 / 8)


def test_dpo_by_hand() -> None:
    loss = dpo_loss(float64([[-10.0, -12.0]]), float64([[-11.0, -10.0]]), float64([[1.0, 0.0]]), beta=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.5 * (1.0 + 2.0))))


def test_ipo_is_zero_where_the_log_ratios_differ_by_half_of_the_inverse_beta() -> None:
    rewards = float64([[1.0, 0.0]])
    assert ipo_loss(float64([[-1.0, -5.0]]), float64([[-2.0, -1.0]]), rewards, beta=0.1).item() == pytest.approx(0.0)
    assert ipo_loss(float64([[-1.0, -4.0]]), float64([[-2.0, -1.0]]), rewards, beta=0.1).item() == pytest.approx(1.0)


def test_simpo_by_hand() -> None:
    loss = simpo_loss(float64([[-1.0, -2.0]]), float64([[1.0, 0.0]]), beta=2.0, gamma=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-(2.0 * 1.0 - 0.5))))


def test_orpo_by_hand() -> None:
    # probabilities 1/2 and 1/4: odds 1 and 1/3
    logps = float64([[math.log(0.5), math.log(0.25)]])
    loss = orpo_loss(logps, logps * 4, torch.tensor([[4, 4]]), float64([[1.0, 0.0]]), beta=0.2)
    assert loss.odds_ratio.item() == pytest.approx(0.2 * math.log(1 + 1 / 3))
    assert loss.nll.item() == pytest.approx(math.log(2))
    assert loss.total.item() == pytest.approx(loss.odds_ratio.item() + loss.nll.item())


@pytest.mark.parametrize("logp", [-1e-12, -1e-6, -0.7, -30.0, -1e4])
def test_orpo_keeps_its_digits_at_both_ends_of_the_probabilities(logp: float) -> None:
    logps = float64([[math.log(0.5), logp]])  # even odds against those of exp(logp)
    loss = orpo_loss(logps, logps, torch.tensor([[1, 1]]), float64([[1.0, 0.0]]), beta=1.0).odds_ratio.item()
    log_odds = logp - math.log(-math.expm1(logp))
    expected = log_odds + math.log1p(math.exp(-log_odds)) if log_odds > 0 else math.log1p(math.exp(log_odds))
    assert loss == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("method", ["dpo", "ipo", "simpo", "orpo"])
def test_methods_on_pairs_contrast_the_best_with_the_worst_present_candidate(method: str) -> None:
    _, sums, _ = random_batch(3, 2, 4)
    lengths = torch.full((2, 4), 7)
    rewards = float64([[2.0, 5.0, 1.0, 3.0], [2.0, 5.0, ABSENT, 3.0]])
    slots = torch.tensor([[1, 2], [1, 0]])
    losses = {
        "dpo": lambda s, n, r: dpo_loss(s, s.sin(), r),
        "ipo": lambda s, n, r: ipo_loss(s / n, (s / n).sin(), r),
        "simpo": lambda s, n, r: simpo_loss(s / n, r),
        "orpo": lambda s, n, r: orpo_loss(s / n, s, n, r).total,
    }
    pair = losses[method](*(tensor.gather(1, slots) for tensor in (sums, lengths, rewards)))
    assert losses[method](sums, lengths, rewards).item() == pytest.approx(pair.item(), rel=1e-12)


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
