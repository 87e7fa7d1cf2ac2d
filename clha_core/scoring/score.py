"""Scores of candidates by a reward model: prompts shared where the model allows it, else little padding."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from clha_core.errors import UserError
from clha_core.packing.last_layer import STANDARD
from clha_core.packing.lean import lean_layers
from clha_core.packing.redirect import redirected
from clha_core.packing.support import attention_window, random_trees, use_trees, why_not
from clha_core.padding import pad_right
from clha_core.scoring.entries import Reading
from clha_core.scoring.last_layer import last_layer_forward
from clha_core.scoring.score_trees import ScorePack, pack_to_score, score_trees, tokens

logger = logging.getLogger(__name__)


class RewardScorer:
    """Decides once how a model's scores are computed.

    Args:
        model: gives one logit, in evaluation mode; its attention becomes `clha_tree` where candidates share prompts.
        pad_token_id: of its tokenizer.
        tokens_per_batch: tokens in one forward pass, at most; a text (or shared texts of a row) above it goes alone.
        max_length: tokens of the longest text.
        reading: where the score comes from, see `clha_core.scoring.entries`; sharing needs last_token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        pad_token_id: int | None,
        tokens_per_batch: int,
        max_length: int,
        reading: Reading = "last_token",
    ) -> None:
        model.config.get_text_config().use_cache = False  # no token follows
        self._model = model
        self._pad_token_id = pad_token_id
        self._tokens_per_batch = tokens_per_batch
        self.trees = False
        if reading == "last_token":
            reason = why_not(model, max_length, error=_error_of_trees, values="scores")
            if reason is not None:
                logger.warning("Candidates do not share their prompts (slower): %s", reason)
            self.trees = reason is None
        if self.trees:
            use_trees(model)
        self._window = attention_window(model) if self.trees else None

    @torch.inference_mode()
    def score(
        self, rows: Sequence[Sequence[list[int]]], progress: Callable[[int], Any] = lambda count: None
    ) -> list[list[float]]:
        """One score for each candidate of each row, in their order.

        Args:
            rows: token ids of each candidate with its prompt, complete with special tokens.
            progress: called with the number of texts that were scored.

        Raises:
            UserError: the model gives more than one logit.
        """
        scores = [0.0] * sum(map(len, rows))
        for indices, found in self._batches(rows):
            for index, score in zip(indices, found.float().tolist(), strict=True):
                scores[index] = score
            progress(len(indices))
        flat = iter(scores)
        return [[next(flat) for _ in row] for row in rows]

    def _batches(self, rows: Sequence[Sequence[list[int]]]) -> Iterator[tuple[list[int], Tensor]]:
        """Positions among all candidates, and their scores."""
        if not self.trees:
            sequences = [ids for row in rows for ids in row]
            for batch in cut_by_length(list(map(len, sequences)), self._tokens_per_batch, padded=True):
                yield batch, padded_scores(self._model, [sequences[index] for index in batch], self._pad_token_id)
            return
        trees = [tree for row in rows for tree in score_trees(row, self._window)]
        starts = [0]
        for tree in trees:
            starts.append(starts[-1] + len(tree.responses))
        for batch in cut_by_length(list(map(tokens, trees)), self._tokens_per_batch, padded=False):
            indices = [candidate for tree in batch for candidate in range(starts[tree], starts[tree + 1])]
            yield indices, tree_scores(self._model, pack_to_score([trees[tree] for tree in batch], self._model.device))


def cut_by_length(lengths: Sequence[int], budget: int, *, padded: bool) -> Iterator[list[int]]:
    """Batches of similar lengths, the longest first: what does not fit into memory fails at once.

    Args:
        lengths: of each item, in tokens.
        budget: tokens of a batch, at most; an item above it gets a batch of its own.
        padded: all items of a batch count as the longest of it.
    """
    batch: list[int] = []
    load = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        cost = lengths[batch[0]] if padded and batch else lengths[index]
        if batch and load + cost > budget:
            yield batch
            batch, load = [], 0
            cost = lengths[index]
        batch.append(index)
        load += cost
    if batch:
        yield batch


def tree_scores(model: PreTrainedModel, pack: ScorePack) -> Tensor:
    """(C,) scores of a pack's candidates, by a model whose attention is `clha_tree`.

    The body runs on the pack. The model's own head then finds one token a candidate, the last one.
    """
    body: Any = model.base_model
    own_forward = body.forward
    last_layer = last_layer_forward(body, pack)

    def last_states(*_: Any, **__: Any) -> BaseModelOutputWithPast:
        with ExitStack() as stack:
            if last_layer is not None:
                stack.enter_context(redirected(body.layers[-1], last_layer))
            if body.config.model_type in STANDARD:
                stack.enter_context(lean_layers(body))
            hidden = own_forward(
                input_ids=pack.input_ids,
                position_ids=pack.position_ids,
                # Four dimensions are taken as they are: no mask of the pack's square is made.
                attention_mask=pack.input_ids.new_ones((1, 1, 1, 1), dtype=torch.bool),
                use_cache=False,
                trees=(pack.segments, pack.masks),
            ).last_hidden_state
        rows = hidden if last_layer is not None else hidden[:, pack.ends]
        return BaseModelOutputWithPast(last_hidden_state=rows.transpose(0, 1))

    with redirected(body, last_states):
        return padded_scores(model, [[token] for token in pack.input_ids[0, pack.ends].tolist()], None)


def padded_scores(model: PreTrainedModel, sequences: Sequence[list[int]], pad_token_id: int | None) -> Tensor:
    """(sequences,) scores by the model's own forward, padded on the right.

    transformers finds the last real token as the last one that is not `config.pad_token_id`: it would read one token
    early where a tokenizer pads with its EOS. So padding is a token that is in none of the sequences.

    Raises:
        UserError: the model gives more than one logit.
    """
    filler = unused_token_id(sequences, pad_token_id, model.config.get_text_config().vocab_size)
    if filler is None:
        return torch.cat([padded_scores(model, [ids], None) for ids in sequences])
    input_ids, attention_mask = (part.to(model.device) for part in pad_right(sequences, filler))
    config = model.config.get_text_config()
    configured, config.pad_token_id = config.pad_token_id, filler
    try:
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
    finally:
        config.pad_token_id = configured
    if logits.shape != (len(sequences), 1):
        raise UserError(
            f"{type(model).__name__} gives {tuple(logits.shape)} logits for {len(sequences)} texts; "
            "a reward model has one for each text."
        )
    return logits[:, 0]


def unused_token_id(sequences: Sequence[list[int]], preferred: int | None, vocab_size: int) -> int | None:
    """A token id that is in none of the sequences; -1 where all are of one length; None where there is no such id."""
    if len({len(ids) for ids in sequences}) == 1:
        return -1
    used = set().union(*sequences)
    candidates = ([] if preferred is None else [preferred], range(vocab_size))
    return next((token for part in candidates for token in part if token not in used), None)


def _error_of_trees(model: nn.Module) -> float:
    """Of scores from packed trees against those of each text alone, in their standard deviations."""
    assert isinstance(model, PreTrainedModel)
    trees = random_trees(model)
    expected = torch.cat(
        [padded_scores(model, [tree.prompt + response], None) for tree in trees for response in tree.responses]
    )
    use_trees(model)
    found = tree_scores(model, pack_to_score(trees, model.device))
    # Two roundings of a score that is far from zero, in half precision, say nothing about trees.
    rounding = torch.finfo(expected.dtype).eps * expected.abs()
    difference = ((found - expected).abs() - rounding).clamp(min=0)
    return (difference.square().mean().sqrt() / expected.std()).item()
