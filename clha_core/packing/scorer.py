"""Log-probs of responses, by tree packing where the model allows it, else by padded sequences."""

import logging
from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor, nn

from clha_core.errors import UserError
from clha_core.packing.forward import sums, token_logps
from clha_core.packing.padded import padded_token_logps
from clha_core.packing.support import use_trees, why_not
from clha_core.packing.trees import Tree, TreePack

logger = logging.getLogger(__name__)


class ResponseScorer:
    """Decides once how a model's log-probs are computed.

    Args:
        model: a causal language model; its attention becomes `clha_tree` where trees are used.
        packing: trees, padded, or auto: trees where they give the model's own log-probs.
        longest: tokens of the longest row of the data, packed.

    Raises:
        UserError: `packing` is trees and the model gives other log-probs with them.
    """

    def __init__(self, model: nn.Module, packing: str, longest: int) -> None:
        reason = None if packing == "padded" else _agreed(why_not(model, longest))
        if reason is not None and packing == "trees":
            raise UserError(f"packing: trees does not work for this model: {reason} Use auto or padded.")
        if reason is not None:
            logger.warning("No tree packing, candidates are padded instead (slower): %s", reason)
        self.trees = packing != "padded" and reason is None
        if self.trees:
            use_trees(model)

    def cost(self, trees: Sequence[Tree]) -> int:
        """Tokens that trees add to a forward pass."""
        return sum(tree.tokens if self.trees else tree.sequence_tokens for tree in trees)

    def sums(self, model: nn.Module, trees: Sequence[Tree], pack: TreePack) -> Tensor:
        """(C,) log-prob of each response, summed over its tokens, its EOS included.

        Args:
            model: the model that this was made for, or what wraps it now.
            trees, pack: the responses, as trees and laid out.
        """
        logps = token_logps(model, pack) if self.trees else padded_token_logps(model, trees)
        return sums(logps, pack)


def _agreed(reason: str | None) -> str | None:
    """The first process' answer, which has the weights: FSDP loads them nowhere else before it divides them."""
    if not dist.is_initialized():
        return reason
    answer = [reason]
    dist.broadcast_object_list(answer, src=0)
    return answer[0]
