"""CLHAConfig: transformers' TrainingArguments and what the methods need. Defaults are the paper's."""

import os
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from transformers import TrainingArguments

from clha_core.errors import UserError

Method = Literal["clha", "sft", "rrhf", "pro", "dpo", "ipo", "simpo", "orpo"]
METHODS: tuple[str, ...] = get_args(Method)
# These compare the policy with the model that the training starts from.
NEEDS_REFERENCE = ("dpo", "ipo")
CHOICES = {
    "method": METHODS,
    "logp_normalisation": ("mean", "sum"),
    "prompt_format": ("hh", "chat_template"),
    "packing": ("auto", "trees", "padded"),
}
NOT_NEGATIVE = ("margin", "reward_gap", "sft_weight", "simpo_gamma")
POSITIVE = ("beta", "max_length", "max_prompt_length", "rows_per_step", "tokens_per_micro_batch")


@dataclass
class CLHAConfig(TrainingArguments):
    """Configuration of `CLHATrainer`.

    A step trains on `rows_per_step` rows over all processes, in micro-batches of at most `tokens_per_micro_batch`
    tokens: memory is bounded whatever the lengths, and no batch size has to be tuned. Which rows a step trains on does
    not depend on the cut, and neither does the loss, so the curve is that of fixed batches. Setting
    `per_device_train_batch_size` gives transformers' fixed micro-batches instead (with
    `gradient_accumulation_steps` of them a step).

    Attributes:
        method: the loss (`clha_core.losses`).
        margin: clha: wanted log-prob difference per rank distance.
        reward_gap: clha: pairs whose rewards differ by no more than this are masked.
        reward_gap_quantile: clha: the gap as a quantile of the training data's reward differences between
            neighbouring ranks, instead of `reward_gap`.
        sft_weight: weight of the likelihood term of clha (alpha), pro and rrhf.
        logp_normalisation: what clha compares: log-probs averaged over tokens (the paper) or summed.
        reward_mask: clha's ablation: False trains on pairs of similar reward too.
        scale_margin: clha's ablation: False wants the same margin at every rank distance.
        gate_sft: clha's ablation: False imitates best answers of bad reward too.
        beta: dpo, ipo: tie to the reference model; simpo: scale of log-probs; orpo: weight of the odds ratio.
        simpo_gamma: simpo: target margin times beta, as in TRL.
        reference_cache: folder in which dpo and ipo keep the reference model's log-probs.
        prompt_format: HH's plain text, or the tokenizer's chat template.
        max_length: tokens of prompt and response together.
        max_prompt_length: tokens of prompt; longer ones lose their oldest tokens.
        rows_per_step: rows of one optimizer step, over all processes.
        tokens_per_micro_batch: tokens in one forward pass, at most (a single longer row still passes).
        packing: trees: prompts shared between candidates, no padding; padded: a padded sequence for every candidate;
            auto: trees where the model is shown to give the same log-probs with them.
    """

    method: Method = field(default="clha", metadata={"help": "The loss."})
    margin: float = field(default=3.0, metadata={"help": "Wanted log-prob difference per rank distance."})
    reward_gap: float = field(default=3.0, metadata={"help": "Pairs closer in reward than this are masked."})
    reward_gap_quantile: float | None = field(
        default=None, metadata={"help": "The gap as a quantile of the data's reward differences."}
    )
    sft_weight: float = field(default=0.05, metadata={"help": "Weight of the likelihood term."})
    logp_normalisation: Literal["mean", "sum"] = field(
        default="mean", metadata={"help": "Log-probs per token or summed."}
    )
    reward_mask: bool = field(default=True, metadata={"help": "Mask pairs of similar reward."})
    scale_margin: bool = field(default=True, metadata={"help": "The margin grows with the rank distance."})
    gate_sft: bool = field(default=True, metadata={"help": "Do not imitate best answers whose reward is <= 0."})
    beta: float = field(default=0.1, metadata={"help": "The beta of dpo, ipo, simpo and orpo."})
    simpo_gamma: float = field(default=1.0, metadata={"help": "SimPO's target margin times beta."})
    reference_cache: str | None = field(default=None, metadata={"help": "Where reference log-probs are kept."})
    prompt_format: Literal["hh", "chat_template"] = field(default="hh", metadata={"help": "How turns become text."})
    max_length: int = field(default=512, metadata={"help": "Tokens of prompt and response together."})
    max_prompt_length: int = field(default=384, metadata={"help": "Tokens of prompt."})
    rows_per_step: int = field(default=64, metadata={"help": "Rows of one optimizer step, over all processes."})
    tokens_per_micro_batch: int = field(default=8192, metadata={"help": "Tokens in one forward pass, at most."})
    packing: Literal["auto", "trees", "padded"] = field(default="auto", metadata={"help": "How rows become tokens."})
    per_device_train_batch_size: int | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Rows of a micro-batch; None for micro-batches by tokens."}
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows read at once in an evaluation."})
    # The collator needs columns that no model's forward names, so the Trainer must not drop them.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off."})
    # Where runs are recorded is chosen by a callback (clha_core.tracking), not found by what is installed.
    report_to: Any = field(default="none", metadata={"help": "Integrations of transformers to report to."})
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Page-locked batches, for a GPU."}
    )
    learning_rate: float = field(default=5e-6, metadata={"help": "Peak learning rate of AdamW."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Passes over the data."})

    def __post_init__(self) -> None:
        """Refuse what a typo or a habit would otherwise turn into another training than was meant."""
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"CLHAConfig: {name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}.")
        if self.remove_unused_columns:
            raise UserError("CLHAConfig: remove_unused_columns must stay off, the loss needs those columns.")
        if self.reward_gap_quantile is not None and not 0 <= self.reward_gap_quantile <= 1:
            raise UserError(f"CLHAConfig: reward_gap_quantile is {self.reward_gap_quantile}; it is between 0 and 1.")
        for name in (*NOT_NEGATIVE, *POSITIVE):
            value = getattr(self, name)
            if not (value > 0 or (value == 0 and name in NOT_NEGATIVE)):
                limit = "not negative" if name in NOT_NEGATIVE else "above 0"
                raise UserError(f"CLHAConfig: {name} is {value}; it has to be {limit}.")
        if self.per_device_train_batch_size is None:
            self.per_device_train_batch_size = self._rows_per_process()
        super().__post_init__()

    def _rows_per_process(self) -> int:
        """The Trainer's batch is then a process' share of a step; the trainer cuts it by tokens itself."""
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if self.gradient_accumulation_steps != 1:
            raise UserError(
                "CLHAConfig: gradient_accumulation_steps goes with per_device_train_batch_size; without it, "
                "rows_per_step says how many rows a step has."
            )
        if self.rows_per_step % processes:
            raise UserError(
                f"CLHAConfig: rows_per_step ({self.rows_per_step}) must be a multiple of the {processes} processes."
            )
        return self.rows_per_step // processes
