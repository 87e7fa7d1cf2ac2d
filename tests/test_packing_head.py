"""Log-probs of targets straight from hidden states: torch's log-softmax, in less memory."""

import pytest
import torch
from torch import Tensor

from clha_core.packing.head import picked_logps, target_logps

ROW = 17 * 8  # bytes of a row of logits in float64


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator).to(dtype)
    weight = torch.randn(17, 5, generator=generator).to(dtype)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.tensor([3, 0, 16, 3, 5, 3, 0])


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_blocks_of_any_size_give_torchs_log_softmax_and_its_gradients(rows: int) -> None:
    hidden, weight, targets = case()
    expected = picked_logps(hidden @ weight.t(), targets)
    grad = torch.linspace(-1, 2, 7, dtype=torch.float64)
    expected_grads = torch.autograd.grad(expected, (hidden, weight), grad)
    found = target_logps(hidden, weight, targets, block_bytes=rows * ROW)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    for one, other in zip(torch.autograd.grad(found, (hidden, weight), grad), expected_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rows", [2, 100], ids=["blocks", "one block"])
@pytest.mark.parametrize("trained", ["both", "hidden", "weight"])
def test_gradients_are_those_of_finite_differences(trained: str, rows: int) -> None:
    hidden, weight, targets = case()
    hidden.requires_grad_(trained != "weight")
    weight.requires_grad_(trained != "hidden")
    assert torch.autograd.gradcheck(
        lambda hidden, weight: target_logps(hidden, weight, targets, block_bytes=rows * ROW), (hidden, weight)
    )


def test_a_smaller_block_than_a_row_is_a_row() -> None:
    hidden, weight, targets = case()
    assert torch.equal(target_logps(hidden, weight, targets, block_bytes=1), target_logps(hidden, weight, targets))


def test_a_second_backward_gives_the_same_gradients() -> None:
    hidden, weight, targets = case()
    loss = target_logps(hidden, weight, targets).sum()
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(loss, (hidden, weight))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("rows", [2, 100], ids=["blocks", "one block"])
def test_bfloat16_is_summed_in_float32(rows: int) -> None:
    hidden, weight, targets = case(torch.bfloat16)
    found = target_logps(hidden, weight, targets, block_bytes=rows * ROW // 4)
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
