"""Log-probs of targets straight from hidden states: torch's log-softmax, in less memory."""

import pytest
import torch
from torch import Tensor

from benchmarks.measure import cpu_peak
from clha_core.packing.head import picked_logps, target_logps

NONE, ALL = 0, 2**20  # bytes of logits that are kept for the backward pass


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator).to(dtype)
    weight = torch.randn(17, 5, generator=generator).to(dtype)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.tensor([3, 0, 16, 3, 5, 3, 0])


@pytest.mark.parametrize("kept_bytes", [NONE, ALL], ids=["made again", "kept"])
@pytest.mark.parametrize("columns", [1, 2, 5, 17, 100])
def test_blocks_of_any_size_give_torchs_log_softmax_and_its_gradients(columns: int, kept_bytes: int) -> None:
    hidden, weight, targets = case()
    expected = picked_logps(hidden @ weight.t(), targets)
    grad = torch.linspace(-1, 2, 7, dtype=torch.float64)
    expected_grads = torch.autograd.grad(expected, (hidden, weight), grad)
    found = target_logps(hidden, weight, targets, columns=columns, kept_bytes=kept_bytes)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    for one, other in zip(torch.autograd.grad(found, (hidden, weight), grad), expected_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("columns", [5, 17], ids=["blocks", "one block"])
@pytest.mark.parametrize("trained", ["both", "hidden", "weight"])
def test_gradients_are_those_of_finite_differences(trained: str, columns: int) -> None:
    hidden, weight, targets = case()
    hidden.requires_grad_(trained != "weight")
    weight.requires_grad_(trained != "hidden")
    assert torch.autograd.gradcheck(
        lambda hidden, weight: target_logps(hidden, weight, targets, columns=columns), (hidden, weight)
    )


def test_logits_that_are_not_kept_take_a_block_of_memory_only() -> None:
    hidden = torch.randn(512, 8).requires_grad_()
    weight, targets = torch.randn(16384, 8), torch.zeros(512, dtype=torch.long)
    logits = 512 * 16384 * 4
    peaks = [
        cpu_peak(lambda kept=kept: target_logps(hidden, weight, targets, kept_bytes=kept).sum().backward())
        for kept in (logits - 1, logits)
    ]
    assert peaks[0] < 0.6 * logits < logits < peaks[1]


def test_a_token_of_nearly_no_probability_has_its_log_prob_and_gradient() -> None:
    """exp() of its distance from the largest logit is 0, in its own block and in another one."""
    hidden = torch.ones(2, 1, requires_grad=True)
    weight = torch.tensor([[0.0], [500.0], [-400.0], [3.0]], requires_grad=True)
    targets = torch.tensor([0, 2])
    found = target_logps(hidden, weight, targets, columns=2)
    assert found.tolist() == [-500.0, -900.0]
    found.sum().backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert hidden.grad[:, 0].tolist() == [-500.0, -900.0]
    assert weight.grad[:, 0].tolist() == [1.0, -2.0, 1.0, 0.0]


def test_a_second_backward_gives_the_same_gradients() -> None:
    hidden, weight, targets = case()
    loss = target_logps(hidden, weight, targets).sum()
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(loss, (hidden, weight))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("columns", [5, 17], ids=["blocks", "one block"])
def test_bfloat16_is_summed_in_float32(columns: int) -> None:
    hidden, weight, targets = case(torch.bfloat16)
    found = target_logps(hidden, weight, targets, columns=columns)
    expected = picked_logps(hidden @ weight.t(), targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    grads = torch.autograd.grad(found.sum(), (hidden, weight)), torch.autograd.grad(expected.sum(), (hidden, weight))
    for one, other in zip(*grads, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one, other, rtol=2**-6, atol=2**-6)


def test_autocast_multiplies_in_bfloat16_and_gives_gradients_in_float32() -> None:
    hidden, weight, targets = case(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = target_logps(hidden, weight, targets)
    low = target_logps(hidden.bfloat16(), weight.bfloat16(), targets)
    assert torch.equal(found, low)
    assert all(grad.dtype == torch.float32 for grad in torch.autograd.grad(found.sum(), (hidden, weight)))


def test_without_gradients_nothing_is_kept() -> None:
    hidden, weight, targets = case()
    with torch.no_grad():
        assert target_logps(hidden, weight, targets).grad_fn is None


def test_a_real_vocabulary_may_be_overwritten_in_place() -> None:
    large = torch.randn(3, 40, dtype=torch.float64) @ torch.randn(40, 50_000, dtype=torch.float64)
    identity = torch.eye(3, dtype=torch.float64)
    targets = torch.tensor([1, 2, 49_999])
    torch.testing.assert_close(
        target_logps(identity, large.t().contiguous(), targets), picked_logps(large, targets), rtol=0, atol=1e-12
    )
