"""Candidates laid out to be scored: what they share is there once.

As in `clha_core.packing.trees`, but here every token is an input and one hidden state a candidate is read: that of its
last token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clha_core.packing.trees import Segment, Tree, response_mask

# Sharing makes candidates attend through a mask, which is slower than a plain causal one: it has to save something.
WORTH_SHARING = 0.1


@dataclass(frozen=True)
class ScorePack:
    """Several trees in one row of T tokens, with C candidates.

    Attributes:
        input_ids, position_ids: (1, T), positions as if each candidate were alone.
        segments: the trees, in their order.
        masks: for each tree what its candidates' own tokens may attend to, as `clha_core.packing.trees.response_mask`.
        ends: (C,) positions in 0..T-1 of the candidates' last tokens.
        candidates: of each tree.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: tuple[Segment, ...]
    masks: tuple[Tensor, ...]
    ends: Tensor
    candidates: tuple[int, ...]


def shared_length(sequences: Sequence[list[int]]) -> int:
    """Tokens that all sequences begin with, less than the shortest one has: each keeps a token of its own."""
    first, last = min(sequences), max(sequences)  # what these two share in front, all between them share
    limit = min(map(len, sequences)) - 1
    return next((at for at in range(limit) if first[at] != last[at]), limit)


def score_trees(sequences: Sequence[list[int]], longest: int | None = None) -> list[Tree]:
    """The candidates of a row as one tree, or each as a tree of its own where sharing would save little.

    Args:
        sequences: token ids of each candidate with its prompt.
        longest: tokens of a tree, at most, where the model's attention has a window.
    """
    shared = shared_length(sequences)
    tree = Tree(sequences[0][:shared], [ids[shared:] for ids in sequences])
    alone = sum(map(len, sequences))
    saves = alone - tokens(tree) > WORTH_SHARING * alone
    if len(sequences) > 1 and saves and (longest is None or tokens(tree) <= longest):
        return [tree]
    # A chain goes the plain causal way all but its last token.
    return [Tree(ids[:-1], [ids[-1:]]) for ids in sequences]


def tokens(tree: Tree) -> int:
    """Tokens that a tree takes up in a pack."""
    return len(tree.prompt) + sum(map(len, tree.responses))


def pack_to_score(trees: Sequence[Tree], device: torch.device | str = "cpu") -> ScorePack:
    """Lay trees out behind each other."""
    ids: list[int] = []
    positions: list[int] = []
    ends: list[int] = []
    for tree in trees:
        ids += tree.prompt
        positions += range(len(tree.prompt))
        for response in tree.responses:
            ids += response
            positions += range(len(tree.prompt), len(tree.prompt) + len(response))
            ends.append(len(ids) - 1)
    return ScorePack(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        segments=tuple(Segment(len(tree.prompt), sum(map(len, tree.responses))) for tree in trees),
        masks=tuple(
            response_mask(len(tree.prompt), [len(response) for response in tree.responses]).to(device) for tree in trees
        ),
        ends=torch.tensor(ends, device=device),
        candidates=tuple(len(tree.responses) for tree in trees),
    )
