"""Log-probs of responses by padded sequences, for models whose attention trees do not fit: slower, and as exact."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clha_core.packing.forward import causal_lm
from clha_core.packing.head import picked_logps
from clha_core.packing.trees import Tree
from clha_core.padding import pad_right


def padded_token_logps(model: nn.Module, trees: Sequence[Tree]) -> Tensor:
    """Log-prob of every token of every response, (S,), in the order of `TreePack.targets`, in float32 or float64.

    Each response is a sequence of its own behind its prompt, all of them in one block with padding on the right. Logits
    are those of the model's own forward, at all positions: they are most of the memory.

    Args:
        model: a causal language model; it may be wrapped (DDP, FSDP, peft).
        trees: prompts with their responses.
    """
    sequences = [(tree.prompt, response) for tree in trees for response in tree.responses]
    # Any token may be the padding: it is behind everything that is read.
    input_ids, attention_mask = pad_right([prompt + response for prompt, response in sequences], pad_token_id=0)
    rows = [row for row, (_, response) in enumerate(sequences) for _ in response]
    predicting = [
        at for prompt, response in sequences for at in range(len(prompt) - 1, len(prompt) + len(response) - 1)
    ]
    targets = torch.tensor([token for _, response in sequences for token in response])
    device = causal_lm(model).device
    logits = model(input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), use_cache=False).logits
    return picked_logps(logits[rows, predicting], targets.to(device))
