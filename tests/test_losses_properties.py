"""What holds for the loss of every method: rows of any width, in any order, divided in any way."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import LOGPS, LOSSES, REFERENCE_LOGPS, Batch, random_batch, totals_of

from clha_core.losses import ABSENT, Totals, clha_loss

every_loss = pytest.mark.parametrize("name", LOSSES)
shapes = {"seed": st.integers(0, 10_000), "rows": st.integers(1, 6), "n": st.integers(2, 5)}


def gradients(name: str, batch: Batch, totals: Totals | None = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, and its gradient for the policy's log-probs (0 for those that it does not read)."""
    logps = {field: getattr(batch, field).clone().requires_grad_() for field in LOGPS}
    loss = LOSSES[name](batch._replace(**logps), totals)
    found = torch.autograd.grad(loss, list(logps.values()), allow_unused=True, materialize_grads=True)
    return loss.detach(), dict(zip(LOGPS, found, strict=True))


def added(totals: list[Totals]) -> Totals:
    return Totals(*(torch.stack(field).sum(0) for field in zip(*totals, strict=True)))


@every_loss
@given(**shapes, parts=st.integers(1, 4))
def test_losses_of_micro_batches_add_up_to_the_loss_of_the_batch(
    name: str, seed: int, rows: int, n: int, parts: int
) -> None:
    batch = random_batch(seed, rows, n)
    part_of_row = torch.randint(0, parts, (rows,), generator=torch.Generator().manual_seed(seed))
    micro_batches = [batch.select((part_of_row == part).nonzero().squeeze(1)) for part in part_of_row.unique()]
    totals = added([totals_of(name, micro_batch) for micro_batch in micro_batches])

    losses = [LOSSES[name](micro_batch, totals) for micro_batch in micro_batches]

    assert torch.stack(losses).sum().item() == pytest.approx(LOSSES[name](batch, None).item(), rel=1e-12, abs=1e-12)


@every_loss
@given(**shapes)
def test_micro_batches_may_be_narrower_than_the_widest(name: str, seed: int, rows: int, n: int) -> None:
    narrow = random_batch(seed, rows, n)
    wide = Batch(*(torch.cat([tensor, tensor[:, :1]], dim=1) for tensor in narrow))
    wide = wide._replace(rewards=torch.cat([narrow.rewards, torch.full((rows, 1), ABSENT)], dim=1))
    assert LOSSES[name](narrow, totals_of(name, wide)).item() == pytest.approx(
        LOSSES[name](wide, None).item(), abs=1e-12
    )


@every_loss
@given(**shapes)
def test_the_order_of_candidates_does_not_matter(name: str, seed: int, rows: int, n: int) -> None:
    batch = random_batch(seed, rows, n)
    order = torch.rand(rows, n, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    shuffled = batch.reorder(order)
    assert LOSSES[name](shuffled, None).item() == pytest.approx(LOSSES[name](batch, None).item(), abs=1e-12)


@every_loss
@given(**shapes)
def test_the_order_of_rows_does_not_matter(name: str, seed: int, rows: int, n: int) -> None:
    batch = random_batch(seed, rows, n)
    shuffled = batch.select(torch.randperm(rows, generator=torch.Generator().manual_seed(seed)))
    assert LOSSES[name](shuffled, None).item() == pytest.approx(LOSSES[name](batch, None).item(), abs=1e-12)


@every_loss
@given(**shapes, extra=st.integers(1, 3))
def test_absent_slots_change_nothing(name: str, seed: int, rows: int, n: int, extra: int) -> None:
    batch = random_batch(seed, rows, n, ragged=False)
    junk = random_batch(seed + 1, rows, extra, ragged=False)._replace(rewards=torch.full((rows, extra), ABSENT))
    wider = Batch(*(torch.cat(pair, dim=1) for pair in zip(junk, batch, strict=True)))
    loss, gradient = gradients(name, batch)

    wider_loss, wider_gradient = gradients(name, wider)

    assert wider_loss.item() == pytest.approx(loss.item(), rel=1e-12, abs=1e-12)
    for field in LOGPS:
        torch.testing.assert_close(wider_gradient[field][:, extra:], gradient[field], rtol=1e-12, atol=1e-12)


@every_loss
@pytest.mark.parametrize("junk", [0.0, 1e30, -1e30, math.nan])
@given(**shapes)
def test_absent_slots_get_no_gradient(name: str, junk: float, seed: int, rows: int, n: int) -> None:
    batch = random_batch(seed, rows, n)
    absent = batch.rewards == ABSENT
    filled = {field: getattr(batch, field).masked_fill(absent, junk) for field in (*LOGPS, *REFERENCE_LOGPS)}
    loss, gradient = gradients(name, batch._replace(**filled))
    assert math.isfinite(loss)
    for field in LOGPS:
        assert (gradient[field][absent] == 0).all()
        assert gradient[field].isfinite().all()


@given(**shapes)
def test_a_rows_own_number_of_candidates_weighs_its_sft_term(seed: int, rows: int, n: int) -> None:
    batch = random_batch(seed, rows, n)
    alone = []
    for row in range(rows):
        present = batch.rewards[row] > ABSENT
        means, sums, rewards = (
            tensor[row : row + 1, present] for tensor in (batch.mean_logps, batch.sum_logps, batch.rewards)
        )
        alone.append(clha_loss(means, sums, rewards).sft)
    whole = clha_loss(batch.mean_logps, batch.sum_logps, batch.rewards).sft
    assert whole.item() == pytest.approx(torch.stack(alone).mean().item(), abs=1e-12)


# IPO aims at a difference of log-ratios, and pulls back where it is exceeded.
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "ipo"])
@given(**shapes)
def test_no_loss_lowers_the_best_or_raises_the_worst_candidate(name: str, seed: int, rows: int, n: int) -> None:
    batch = random_batch(seed, rows, n)
    best = batch.rewards.argmax(dim=1, keepdim=True)
    worst = batch.rewards.masked_fill(batch.rewards == ABSENT, math.inf).argmin(dim=1, keepdim=True)
    _, gradient = gradients(name, batch)
    for field in LOGPS:
        assert (gradient[field].gather(1, best) <= 0).all()
        assert (gradient[field].gather(1, worst) >= 0).all()


@every_loss
def test_a_loss_raises_the_best_and_lowers_the_worst_of_a_violated_pair(name: str) -> None:
    batch = random_batch(0, 1, 2, ragged=False)._replace(
        mean_logps=torch.tensor([[-3.0, -1.0]]).double(), rewards=torch.tensor([[5.0, 1.0]]).double()
    )
    batch = batch._replace(sum_logps=batch.mean_logps * 20, lengths=torch.tensor([[20, 20]]))
    _, gradient = gradients(name, batch)
    total = gradient["mean_logps"] + gradient["sum_logps"]
    assert total[0, 0] < 0
    assert total[0, 1] == 0 if name in {"sft", "clha sft"} else total[0, 1] > 0


@every_loss
@settings(max_examples=15)
@given(**shapes)
def test_gradients_match_finite_differences(name: str, seed: int, rows: int, n: int) -> None:
    batch = random_batch(seed, rows, n)
    logps = tuple(getattr(batch, field).clone().requires_grad_() for field in LOGPS)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        # gradcheck wants a loss that depends on all inputs
        used = batch._replace(**dict(zip(LOGPS, values, strict=True)))
        return LOSSES[name](used, None) + 0 * sum(value.sum() for value in values)

    assert torch.autograd.gradcheck(loss, logps)


@every_loss
@given(seed=st.integers(0, 1000))
def test_tied_rewards_leave_loss_and_gradient_finite(name: str, seed: int) -> None:
    batch = random_batch(seed, 3, 3)
    tied = batch._replace(rewards=(batch.rewards / 8).round())
    loss, gradient = gradients(name, tied)
    assert math.isfinite(loss)
    assert all(gradient[field].isfinite().all() for field in LOGPS)


@every_loss
@pytest.mark.parametrize("likelier", [0, 1], ids=["best likelier", "worst likelier"])
@pytest.mark.parametrize("high", [0.0, -1e-30, -1e-9, -1e-6])
def test_extreme_log_probs_in_fp32_give_finite_losses_and_gradients(name: str, likelier: int, high: float) -> None:
    mean_logps = torch.tensor([[-1e4, -1e4], [high, high]])
    mean_logps[0, likelier] = high
    means = torch.cat([mean_logps, torch.full((1, 2), -1e4)])
    batch = Batch(means, means * 3, -torch.ones(3, 2), -torch.ones(3, 2), torch.full((3, 2), 3), torch.ones(3, 2))
    loss, gradient = gradients(name, batch._replace(rewards=torch.tensor([[5.0, 1.0]] * 3)))
    assert math.isfinite(loss)
    assert all(gradient[field].isfinite().all() for field in LOGPS)


@every_loss
def test_tensors_of_different_shapes_are_refused(name: str) -> None:
    batch = random_batch(0, 2, 3)
    with pytest.raises(ValueError, match="one shape"):
        LOSSES[name](batch._replace(rewards=batch.rewards[:, :2]), None)


@every_loss
def test_a_single_candidate_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="n >= 2"):
        LOSSES[name](Batch(*(tensor[:, :1] for tensor in random_batch(0, 2, 2))), None)
