"""A Bradley-Terry reward model from preference labels, in the conventions of TRL's RewardTrainer.

TRL itself is a development dependency (tests/test_reward_training.py compares): its trainer drops long pairs instead of
cutting them, and reads a dialogue by the chat template alone.
"""

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging

from clha_core.data.tables import labelled_pair
from clha_core.errors import UserError
from clha_core.models.loading import ModelSource
from clha_core.padding import pad_right
from clha_core.params import RewardModelParams, RewardTrainParams
from clha_core.progress import show_figures_on_bar
from clha_core.scoring.score import unused_token_id
from clha_core.scoring.text_formats import reward_input_ids


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, center_rewards_coefficient: float) -> Tensor:
    """Mean over pairs of -log sigma(chosen - rejected) + coefficient * (chosen + rejected)^2.

    The second term (arXiv 2312.09244, equation 2) fixes the zero of the rewards, which the first leaves free and which
    the gate of adaptive SFT reads.

    Args:
        chosen, rejected: (pairs,) logits.
    """
    preference = -F.logsigmoid(chosen - rejected).mean()
    return preference + center_rewards_coefficient * (chosen + rejected).square().mean()


class BradleyTerryTrainer(Trainer):
    """Trains on batches that interleave chosen and rejected texts; logs TRL's accuracy, margin and *_reward."""

    def __init__(self, *, center_rewards_coefficient: float, **options: Any) -> None:
        super().__init__(**options)
        self.model_accepts_loss_kwargs = False  # the mean over a micro-batch: the Trainer divides by their number
        self.center_rewards_coefficient = center_rewards_coefficient
        self._figures: dict[str, list[float]] = defaultdict(list)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss on a batch of the collator."""
        policy: Any = self.model
        policy.config.pad_token_id = inputs.pop("pad_token_id")  # transformers finds the last real token by this id
        logits = model(**inputs).logits.float().view(-1)
        chosen, rejected = logits.view(-1, 2).unbind(dim=1)
        figures = {
            "accuracy": (chosen > rejected).float().mean(),
            "margin": (chosen - rejected).mean(),
            "mean_reward": logits.mean(),
            "min_reward": logits.min(),
            "max_reward": logits.max(),
        }
        for name, value in figures.items():
            self._figures[name].append(value.item())
        loss = bradley_terry_loss(chosen, rejected, self.center_rewards_coefficient)
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means over the batches since the last log line, as TRL does."""
        logs |= {name: round(sum(values) / len(values), 6) for name, values in self._figures.items()}
        self._figures.clear()
        super().log(logs, start_time)


def train_reward_model(
    rows: Sequence[Mapping[str, Any]],
    base: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    params: RewardModelParams,
    *,
    text_format: str,
    max_length: int,
    bf16: bool,
    seed: int,
    description: str,
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """Fit a reward model on the labels of `rows`, from the weights of a language model and a new scalar head.

    Weights are in fp32, autocast to bfloat16 on demand. Dropout is off, as in TRL.

    Args:
        rows: ingested rows (`prompt`, `responses`, `sources`).
        base: the language model.
        tokenizer: of that model.
        text_format, max_length: of the texts, as the model will read them.

    Returns:
        The model on the CPU, and the Trainer's log lines.
    """
    torch.manual_seed(seed)
    model, new = _with_new_head(base, params)
    print(f"{description}: learns from {len(rows)} labels; new weights: {', '.join(new)}", flush=True)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    pairs = [
        [
            reward_input_ids(tokenizer, row["prompt"], response, text_format, max_length)
            for response in labelled_pair(row)
        ]
        for row in rows
    ]
    dataset = Dataset.from_dict({"pair": pairs, "length": [max(map(len, pair)) for pair in pairs]})

    def collate(batch: list[dict[str, list[list[int]]]]) -> dict[str, Any]:
        sequences = [ids for row in batch for ids in row["pair"]]
        pad = unused_token_id(sequences, tokenizer.pad_token_id, model.config.get_text_config().vocab_size)
        if pad is None:
            raise UserError(
                "a batch of texts uses every token there is: give the tokenizer a padding token of its own."
            )
        input_ids, attention_mask = pad_right(sequences, pad)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "pad_token_id": pad}

    trainer = BradleyTerryTrainer(
        center_rewards_coefficient=params.train.center_rewards_coefficient,
        model=model,
        args=_arguments(params.train, len(rows), bf16=bf16, seed=seed),
        train_dataset=dataset,
        data_collator=collate,
    )
    show_figures_on_bar(trainer, description)
    trainer.train()
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.cpu().eval(), trainer.state.log_history


def _with_new_head(base: ModelSource, params: RewardModelParams) -> tuple[PreTrainedModel, list[str]]:
    """The language model with a scalar head, and the names of the weights that it did not have."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # else transformers reports the head as missing
    try:
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            base.name,
            revision=base.revision,
            num_labels=1,
            dtype=torch.float32,
            trust_remote_code=params.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(verbosity)
    model, found = loaded
    return model, sorted(found["missing_keys"])


def _arguments(train: RewardTrainParams, rows: int, *, bf16: bool, seed: int) -> TrainingArguments:
    """No checkpoints and no reports; batches grouped by the column `length`, which halves the padding."""
    steps = train.max_steps or max(1, round(train.epochs * rows / train.rows_per_step))
    return TrainingArguments(
        output_dir=str(Path(tempfile.gettempdir()) / "clha-unused"),
        max_steps=steps,
        per_device_train_batch_size=train.rows_per_micro_batch,
        gradient_accumulation_steps=train.rows_per_step // train.rows_per_micro_batch,
        learning_rate=train.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=train.warmup_share,
        weight_decay=train.weight_decay,
        max_grad_norm=1.0,
        activation_checkpointing=train.gradient_checkpointing,
        bf16=bf16,
        use_cpu=torch.accelerator.current_accelerator(check_available=True) is None,  # else bf16 is refused there
        seed=seed,
        save_strategy="no",
        report_to="none",
        logging_steps=max(1, steps // 20),
        remove_unused_columns=False,
        train_sampling_strategy="group_by_length",
        dataloader_pin_memory=False,
    )
