"""Rows cut into packs of about equal cost."""

from collections.abc import Sequence


def cut(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Cut rows into packs of at most `budget`.

    First-fit decreasing: at most 11/9 of the fewest packs, plus one (Dósa 2007).

    Args:
        costs: of each row, in tokens.
        budget: of a pack; a row above it gets a pack of its own.

    Returns:
        Row indices of each pack, ascending; packs in the order of their first rows.
    """
    packs: list[list[int]] = []
    loads: list[int] = []
    for row in _largest_first(costs):
        fitting = next((pack for pack, load in enumerate(loads) if load + costs[row] <= budget), None)
        if fitting is None:
            packs.append([row])
            loads.append(costs[row])
        else:
            packs[fitting].append(row)
            loads[fitting] += costs[row]
    return _in_order(packs)


def cut_into(costs: Sequence[int], count: int) -> list[list[int]]:
    """Cut rows into exactly `count` packs of about equal cost (longest processing time first).

    For processes that have to run the same number of packs.

    Args:
        costs: of each row, in tokens.
        count: of packs.

    Returns:
        As `cut`; no pack is empty.

    Raises:
        ValueError: more packs than rows, or fewer than one.
    """
    if not 1 <= count <= len(costs):
        raise ValueError(f"{len(costs)} rows cannot be cut into {count} packs with a row in each")
    packs: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for row in _largest_first(costs):
        # Empty packs first, whatever a row costs: rows of cost 0 would leave some empty.
        lightest = min(range(count), key=lambda pack: (bool(packs[pack]), loads[pack], pack))
        packs[lightest].append(row)
        loads[lightest] += costs[row]
    return _in_order(packs)


def _largest_first(costs: Sequence[int]) -> list[int]:
    return sorted(range(len(costs)), key=lambda row: (-costs[row], row))


def _in_order(packs: list[list[int]]) -> list[list[int]]:
    return sorted(sorted(pack) for pack in packs)
