"""CLHATrainer: transformers' Trainer over preference rows, in TRL's conventions."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

from clha_core.errors import UserError
from clha_core.losses import adaptive_sft_loss, clha_loss, pro_loss, rank_by_reward, similar_pairs
from clha_core.training.config import CLHAConfig
from clha_core.training.logps import response_logps
from clha_core.training.preference_data import PreferenceCollator, tokenize_preferences


class CLHATrainer(Trainer):
    """Aligns a causal language model with rated candidates.

    Args:
        model: a causal language model, or the name or folder of one.
        args: the configuration.
        train_dataset, eval_dataset: rows with `prompt` and either `responses` and `rewards` (n >= 2 candidates) or
            TRL's `chosen` and `rejected` (with `score_chosen`, `score_rejected` where known).
        processing_class: the model's tokenizer.
        callbacks: further callbacks of transformers.

    Logged beside transformers' own: TRL's `rewards/chosen`, `rewards/rejected`, `rewards/accuracies`,
    `rewards/margins` (implicit rewards: mean log-prob per token of the best- and of the worst-rated candidate) and
    `logps/chosen`, `logps/rejected` (sums); `loss/contrastive`, `loss/sft`; `pairs/masked` (share of neighbouring
    ranks that are masked), `sft/gated` (share of rows whose best answer is not imitated), `reward_model/margins`.
    """

    args: CLHAConfig

    def __init__(
        self,
        model: PreTrainedModel | str,
        args: CLHAConfig,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        if processing_class is None:
            raise UserError("CLHATrainer needs processing_class: the tokenizer of the model.")
        if isinstance(model, str | Path):
            model = AutoModelForCausalLM.from_pretrained(model, use_safetensors=True)
        tokenized = {
            name: tokenize_preferences(rows, processing_class, args, name)
            for name, rows in (("train", train_dataset), ("validation", eval_dataset))
            if rows is not None
        }
        pad = processing_class.pad_token_id
        super().__init__(
            model=model,
            args=args,
            data_collator=PreferenceCollator(processing_class.eos_token_id if pad is None else pad),
            train_dataset=tokenized.get("train"),
            eval_dataset=tokenized.get("validation"),
            processing_class=processing_class,
            callbacks=callbacks,
        )
        # The loss is averaged by the Trainer over accumulated batches, not by a count of labels.
        self.model_accepts_loss_kwargs = False
        self._metrics: dict[str, dict[str, list[Tensor]]] = {"train": defaultdict(list), "eval": defaultdict(list)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The method's loss on a batch; its parts are kept for the next log line."""
        rewards = inputs["rewards"]
        sums, lengths = response_logps(model, inputs)
        rewards, sums, lengths = rank_by_reward(rewards, sums.view_as(rewards), lengths.view_as(rewards))
        loss, parts = self.method_loss(sums, lengths, rewards)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is {loss.item()} at step {self.state.global_step}: lower train.learning_rate, or look "
                "at the rewards of the rows (clha rescore writes a report)."
            )
        self.keep_metrics("train" if model.training else "eval", sums, lengths, rewards, parts)
        return (loss, {}) if return_outputs else loss

    def method_loss(self, sums: Tensor, lengths: Tensor, rewards: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its parts by name; inputs (batch, n), ranked by reward."""
        args = self.args
        if args.method == "sft":
            return -sums[:, 0].sum() / lengths[:, 0].sum(), {}
        means = sums / lengths
        if args.method == "pro":
            sft = adaptive_sft_loss(sums, rewards, sft_weight=args.sft_weight)
            ranking = pro_loss(means, rewards)
            return ranking + sft, {"loss/ranking": ranking, "loss/sft": sft}
        compared = means if args.logp_normalisation == "mean" else sums
        loss = clha_loss(
            compared, sums, rewards, margin=args.margin, reward_gap=args.reward_gap, sft_weight=args.sft_weight
        )
        return loss.total, {
            "loss/contrastive": loss.contrastive,
            "loss/sft": loss.sft,
            "pairs/masked": similar_pairs(rewards, 1, args.reward_gap).float().mean(),
            "sft/gated": (rewards[:, 0] <= 0).float().mean(),
        }

    def keep_metrics(
        self, phase: str, sums: Tensor, lengths: Tensor, rewards: Tensor, parts: dict[str, Tensor]
    ) -> None:
        """Add a batch to the running means of `phase`; inputs (batch, n), ranked by reward."""
        means = sums / lengths
        values = {
            "rewards/chosen": means[:, 0].mean(),
            "rewards/rejected": means[:, -1].mean(),
            "rewards/accuracies": (means[:, 0] > means[:, -1]).float().mean(),
            "rewards/margins": (means[:, 0] - means[:, -1]).mean(),
            "logps/chosen": sums[:, 0].mean(),
            "logps/rejected": sums[:, -1].mean(),
            "reward_model/margins": (rewards[:, 0] - rewards[:, -1]).mean(),
            **parts,
        }
        for name, value in values.items():
            self._metrics[phase][name].append(value.detach())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last log line, as TRL does."""
        phase = "eval" if "eval_loss" in logs else "train"
        prefix = "eval_" if phase == "eval" else ""
        for name, values in self._metrics[phase].items():
            across_processes = self.accelerator.gather(torch.stack(values).float().mean().reshape(1))
            logs[prefix + name] = round(across_processes.mean().item(), 6)
        self._metrics[phase].clear()
        super().log(logs, start_time)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        """The loss alone: logits of a whole evaluation would not fit into memory."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None
