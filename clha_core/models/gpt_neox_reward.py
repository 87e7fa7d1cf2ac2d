"""The reward model of the paper: `model_type: gpt_neox_reward_model`, as OpenAssistant's checkpoints are saved.

A GPT-NeoX body and a bias-carrying linear head `out_proj` on the hidden state of the last real token. transformers
has no such class, so importing this module registers one with AutoConfig and AutoModelForSequenceClassification:
no remote code is needed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, GPTNeoXConfig, GPTNeoXModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXPreTrainedModel


class GPTNeoXRewardConfig(GPTNeoXConfig):
    """GPT-NeoX's configuration and `pooling`: 'last' (last real token) or 'mean' (over real tokens)."""

    model_type = "gpt_neox_reward_model"
    pooling: str = "last"


class GPTNeoXRewardModel(GPTNeoXPreTrainedModel):
    """Scores a text with one logit."""

    config_class = GPTNeoXRewardConfig

    def __init__(self, config: GPTNeoXRewardConfig) -> None:
        super().__init__(config)
        self.gpt_neox = GPTNeoXModel(config)
        self.out_proj = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Logits (batch, 1) of right-padded `input_ids` (batch, tokens)."""
        hidden = self.gpt_neox(input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.config.pooling == "mean":
            weights = (mask / mask.sum(dim=1, keepdim=True)).to(hidden.dtype)
            pooled = (hidden * weights.unsqueeze(-1)).sum(dim=1)
        else:
            last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
            pooled = hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
        return SequenceClassifierOutput(logits=self.out_proj(pooled))


AutoConfig.register("gpt_neox_reward_model", GPTNeoXRewardConfig)
AutoModelForSequenceClassification.register(GPTNeoXRewardConfig, GPTNeoXRewardModel)
