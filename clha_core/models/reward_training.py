"""A Bradley-Terry reward model from preference labels, for users without one of their own."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase, Trainer

from clha_core.data.tables import labelled_pair
from clha_core.models.bare_training import bare_arguments
from clha_core.models.loading import ModelSource
from clha_core.padding import pad_right
from clha_core.params import RewardModelParams
from clha_core.rescoring.text_formats import reward_input_ids
from clha_core.tokenization import hh_prompt

# Bradley-Terry leaves a reward's zero free, and adaptive SFT reads its sign: keep pairs centred (TRL's option).
CENTRE_COEFFICIENT = 0.01


def half_of(row: Mapping[str, Any]) -> int:
    """0 or 1 by the prompt: the two halves that the two reward models learn from share no prompt."""
    return hashlib.sha256(hh_prompt(row["prompt"]).encode()).digest()[0] % 2


class BradleyTerryTrainer(Trainer):
    """-log sigmoid(r_chosen - r_rejected) over batches that interleave chosen and rejected texts."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        chosen, rejected = model(**inputs).logits.float().view(-1, 2).unbind(dim=1)
        loss = -F.logsigmoid(chosen - rejected).mean() + CENTRE_COEFFICIENT * (chosen + rejected).square().mean()
        return (loss, {}) if return_outputs else loss


def train_reward_model(
    rows: Sequence[Mapping[str, Any]],
    base: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    params: RewardModelParams,
    *,
    text_format: str,
    max_length: int,
    seed: int,
    description: str,
) -> PreTrainedModel:
    """Fit a reward model on the labels of `rows`, from the weights of a language model and a new scalar head.

    Args:
        rows: ingested rows (`prompt`, `responses`, `sources`).
        base: the language model.
        tokenizer: of that model.
        text_format, max_length: of the texts, as the model will read them.
    """
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        base.name,
        revision=base.revision,
        num_labels=1,
        trust_remote_code=params.trust_remote_code,
        use_safetensors=True,
    )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    pairs = [
        [
            reward_input_ids(tokenizer, row["prompt"], response, text_format, max_length)
            for response in labelled_pair(row)
        ]
        for row in rows
    ]
    dataset = Dataset.from_dict({"pair": pairs, "length": [max(map(len, pair)) for pair in pairs]})

    def collate(batch: list[dict[str, list[list[int]]]]) -> dict[str, Tensor]:
        input_ids, attention_mask = pad_right([ids for row in batch for ids in row["pair"]], tokenizer.pad_token_id)
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    args = bare_arguments(
        max_steps=params.scratch_steps,
        batch_size=params.scratch_batch_size,
        learning_rate=params.scratch_learning_rate,
        seed=seed,
        description=description,
    )
    trainer = BradleyTerryTrainer(model=model, args=args, train_dataset=dataset, data_collator=collate)
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    return model.cpu().eval()
