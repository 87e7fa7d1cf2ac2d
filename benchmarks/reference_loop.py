"""The training step of the authors' code, in plain words: one padded forward for each candidate rank.

Written anew; what is kept is how the work is laid out. The authors' loop takes a batch whose candidates are sorted by
reward and, for each rank i = 0..n-1, runs the model over the batch's i-th candidates: prompts are repeated in every
candidate, sequences padded to the longest of that rank, logits made for every position, log_softmax taken over all of
them, the targets' log-probs gathered, prompt and padding masked out, the rest averaged. The ranks' averages are stacked
for the contrastive loss, rank 0 is imitated, and one backward goes through all n forwards. Their mask, which counts an
EOS only where a row is padded, is not kept: here every token of a response counts, so that losses can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.batches import PAD_ID, Row
from benchmarks.contestant import Contestant
from clha_core import clha_loss
from clha_core.padding import pad_right


@dataclass(frozen=True)
class RankedBatch:
    """One padded block for each rank.

    Attributes:
        ranks: for each rank the token ids, the attention mask and the response mask, each (samples, longest).
        rewards: (samples, n), descending.
    """

    ranks: list[tuple[Tensor, Tensor, Tensor]]
    rewards: Tensor


def collate(rows: Sequence[Row], device: torch.device) -> RankedBatch:
    """Pad each rank to its own longest sequence."""
    ranks = []
    for rank in range(len(rows[0].response_ids)):
        input_ids, attention_mask = pad_right([row.prompt_ids + row.response_ids[rank] for row in rows], PAD_ID)
        starts = torch.tensor([[len(row.prompt_ids)] for row in rows])
        response_mask = attention_mask.bool() & (torch.arange(input_ids.shape[1]) >= starts)
        ranks.append((input_ids.to(device), attention_mask.to(device), response_mask.to(device)))
    return RankedBatch(ranks, torch.tensor([row.rewards for row in rows], device=device))


def loss(model: LlamaForCausalLM, batch: RankedBatch) -> Tensor:
    """CLHA's loss by n padded forwards."""
    means, sums = [], []
    for input_ids, attention_mask, response_mask in batch.ranks:
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1]
        logps = logits.log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)
        counted = response_mask[:, 1:]
        sums.append((logps * counted).sum(-1))
        means.append(sums[-1] / counted.sum(-1))
    return clha_loss(torch.stack(means, 1), torch.stack(sums, 1), batch.rewards).total


def reference(model: LlamaForCausalLM, *, autocast: bool = False) -> Contestant:
    """The reference's loop over `model`."""
    return Contestant(
        "reference",
        model,
        lambda rows: collate(rows, model.device),
        lambda batch: loss(model, batch),
        autocast=autocast,
    )
