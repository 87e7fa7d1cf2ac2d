"""Rows are cut into packs: every row once, within the budget, the same way every time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clha_core.packing.budget import cut, cut_into

COSTS = st.lists(st.integers(1, 500), max_size=60)


def loads(costs: list[int], packs: list[list[int]]) -> list[int]:
    return [sum(costs[row] for row in pack) for pack in packs]


def holds_every_row_once_in_order(costs: list[int], packs: list[list[int]]) -> None:
    assert sorted(row for pack in packs for row in pack) == list(range(len(costs)))
    assert all(pack == sorted(pack) for pack in packs)
    assert [pack[0] for pack in packs] == sorted(pack[0] for pack in packs)


@given(COSTS, st.integers(1, 1000))
def test_a_pack_keeps_to_the_budget_unless_it_is_one_row(costs: list[int], budget: int) -> None:
    packs = cut(costs, budget)
    holds_every_row_once_in_order(costs, packs)
    for pack, load in zip(packs, loads(costs, packs), strict=True):
        assert load <= budget or len(pack) == 1


@given(COSTS, st.integers(500, 1000))
def test_packs_are_few(costs: list[int], budget: int) -> None:
    # First-fit leaves no two packs that would fit into one.
    filled = loads(costs, cut(costs, budget))
    assert all(one + other > budget for at, one in enumerate(filled) for other in filled[:at])


def test_the_largest_rows_are_placed_first() -> None:
    assert cut([3, 6, 4, 7], 10) == [[0, 3], [1, 2]]


def test_a_row_above_the_budget_gets_its_own_pack() -> None:
    assert cut([3, 20, 4, 20], 10) == [[0, 2], [1], [3]]


def test_no_rows_make_no_packs() -> None:
    assert cut([], 10) == []


@given(COSTS.filter(bool), st.data())
def test_exactly_so_many_packs_with_a_row_in_each(costs: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(costs)))
    packs = cut_into(costs, count)
    holds_every_row_once_in_order(costs, packs)
    assert len(packs) == count
    assert all(packs)


@given(COSTS.filter(bool), st.data())
def test_packs_are_balanced(costs: list[int], data: st.DataObject) -> None:
    # Graham's bound of longest processing time first, with the mean load and the largest row in the optimum's place.
    count = data.draw(st.integers(1, len(costs)))
    heaviest = max(loads(costs, cut_into(costs, count)))
    assert heaviest <= sum(costs) / count + max(costs) * (1 - 1 / count) + 1e-9


def test_rows_that_cost_nothing_leave_no_pack_empty() -> None:
    assert cut_into([0, 0, 5], 3) == [[0], [1], [2]]


@given(COSTS.filter(bool))
def test_equal_rows_are_spread_evenly(costs: list[int]) -> None:
    sizes = [len(pack) for pack in cut_into([7] * len(costs), -(-len(costs) // 3))]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("count", [0, 4])
def test_more_packs_than_rows_or_none_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="3 rows cannot be cut"):
        cut_into([1, 2, 3], count)


@given(COSTS.filter(bool), st.integers(1, 1000))
def test_the_same_rows_are_cut_the_same_way(costs: list[int], budget: int) -> None:
    assert cut(costs, budget) == cut(tuple(costs), budget)
    assert cut_into(costs, 1 + budget % len(costs)) == cut_into(list(costs), 1 + budget % len(costs))
