"""Log-probs of responses under a policy."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def response_logps(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Log-prob of every response given its prompt, its EOS included.

    Args:
        model: a causal language model of transformers.
        batch: `input_ids`, `attention_mask` and `response_mask`, each (sequences, tokens); see PreferenceCollator.

    Returns:
        The sum over each response's tokens (natural log), and the number of those tokens; both (sequences,).
    """
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    targets = batch["input_ids"][:, 1:]
    is_response = batch["response_mask"][:, 1:]
    # Only response positions reach the softmax: prompts are most of the tokens.
    picked = logits[:, :-1][is_response].float()
    token_logps = picked.log_softmax(-1).gather(-1, targets[is_response].unsqueeze(-1)).squeeze(-1)
    per_position = torch.zeros(targets.shape, dtype=token_logps.dtype, device=token_logps.device)
    per_position = per_position.masked_scatter(is_response, token_logps)
    return per_position.sum(-1), is_response.sum(-1)
