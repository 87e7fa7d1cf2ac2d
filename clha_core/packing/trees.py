"""Tree packing: prompts with their candidates laid into one row of tokens, each prompt once, without padding.

A tree is a prompt and the responses that continue it. Its tokens lie side by side, and the attention
(`clha_core.packing.attention`) lets a response see the prompt and itself, never its sibling; positions restart after
the prompt for every response. So each response has the log-probs that it has alone. The last token of a response is a
target only, never an input, and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tree:
    """Token ids of a prompt, and of the responses that follow it (each at least one token)."""

    prompt: list[int]
    responses: list[list[int]]

    @property
    def tokens(self) -> int:
        """Tokens that this tree takes up in a pack."""
        return len(self.prompt) + sum(len(response) - 1 for response in self.responses)

    @property
    def sequence_tokens(self) -> int:
        """Tokens of the responses as sequences of their own: what is trained on, however it is computed."""
        return sum(len(self.prompt) + len(response) for response in self.responses)


@dataclass(frozen=True)
class Segment:
    """Where a tree lies in its pack: the tokens of its prompt, and those of all its responses."""

    prompt: int
    responses: int


@dataclass(frozen=True)
class TreePack:
    """Several trees in one row of T tokens, with C responses, S scored tokens and K rows that scores are read from.

    Attributes:
        input_ids: (1, T).
        position_ids: (1, T), as if each response were alone behind its prompt.
        segments: the trees, in their order.
        masks: for each tree, what its kept rows may attend to, added to the attention scores: 0 or -inf, float32,
            (1 + responses, prompt + responses) tokens.
        kept: (K,) positions in 0..T-1 whose last hidden state predicts a scored token.
        read: (S,) for each scored token, the place in `kept` that predicts it.
        targets: (S,) the scored tokens, all tokens of all responses.
        candidate: (S,) which response, 0..C-1, a scored token belongs to.
        lengths: (C,) scored tokens of each response.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: tuple[Segment, ...]
    masks: tuple[Tensor, ...]
    kept: Tensor
    read: Tensor
    targets: Tensor
    candidate: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str) -> "TreePack":
        """The same on another device."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, masks=tuple(mask.to(device) for mask in self.masks), **moved)


def pack_trees(trees: Sequence[Tree]) -> TreePack:
    """Lay trees out behind each other.

    Raises:
        ValueError: a prompt or a response without tokens: nothing would predict the first token of a response.
    """
    if any(not tree.prompt or not all(tree.responses) or not tree.responses for tree in trees):
        raise ValueError("every tree needs a prompt of one token or more, and responses of one token or more")
    ids: list[int] = []
    positions: list[int] = []
    kept: list[int] = []
    read: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    for tree in trees:
        ids += tree.prompt
        positions += range(len(tree.prompt))
        branch = len(kept)  # the last token of the prompt predicts the first token of every response
        kept.append(len(ids) - 1)
        for response in tree.responses:
            read += [branch, *range(len(kept), len(kept) + len(response) - 1)]
            kept += range(len(ids), len(ids) + len(response) - 1)
            ids += response[:-1]
            positions += range(len(tree.prompt), len(tree.prompt) + len(response) - 1)
            targets += response
            lengths.append(len(response))
    counts = torch.tensor(lengths)
    return TreePack(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        segments=tuple(Segment(len(tree.prompt), tree.tokens - len(tree.prompt)) for tree in trees),
        masks=tuple(
            response_mask(len(tree.prompt), [len(response) - 1 for response in tree.responses]) for tree in trees
        ),
        kept=torch.tensor(kept),
        read=torch.tensor(read),
        targets=torch.tensor(targets),
        candidate=torch.repeat_interleave(torch.arange(len(lengths)), counts),
        lengths=counts,
    )


def response_mask(prompt: int, responses: Sequence[int]) -> Tensor:
    """What the last token of a prompt may attend to, and the tokens of its responses.

    The one sees the prompt, the others the prompt and their own response up to themselves.

    Args:
        prompt: tokens of the prompt.
        responses: tokens of each response.

    Returns:
        (1 + sum of responses, prompt + sum of responses), 0 where attention is allowed, else -inf.
    """
    own = torch.block_diag(torch.ones(1, 0), *(torch.ones(length, length).tril() for length in responses))
    allowed = torch.cat([torch.ones(own.shape[0], prompt), own], dim=1)
    return torch.zeros_like(allowed).masked_fill(allowed == 0, -torch.inf)
