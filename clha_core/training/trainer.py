"""CLHATrainer: transformers' Trainer over preference rows, in TRL's conventions."""

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from clha_core.errors import UserError
from clha_core.losses import Totals, reward_gap_at_quantile
from clha_core.models.sharded import is_sharded
from clha_core.models.zero3 import has_partitions, size
from clha_core.packing.budget import cut, cut_into
from clha_core.packing.scorer import ResponseScorer
from clha_core.training.batches import (
    MicroBatch,
    PreferenceCollator,
    Row,
    add_totals,
    length_table,
    micro_batch,
    reward_table,
    totals_of,
)
from clha_core.training.config import NEEDS_REFERENCE, CLHAConfig
from clha_core.training.methods import Scores, method_loss
from clha_core.training.metrics import RunningMeans, record_scores
from clha_core.training.policy import trained_policy
from clha_core.training.preference_data import EXAMPLES, tokenize_preferences
from clha_core.training.reference import with_reference_logps
from clha_core.training.sharded_trainer import ShardedTrainer
from clha_core.training.split_loss import SplitLoss


class CLHATrainer(ShardedTrainer):
    """Aligns a causal language model with rated candidates.

    Args:
        model: a causal language model, or the name or folder of one. Processes that were started for FSDP each read
            their part of it, so there it has to be a name or a folder; for ZeRO-3 it should be.
        args: the configuration.
        train_dataset, eval_dataset: rows with `prompt` and either `responses` and `rewards` (n >= 2 candidates, not the
            same n in every row) or TRL's `chosen` and `rejected` (with `score_chosen`, `score_rejected` where known).
        processing_class: the model's tokenizer.
        callbacks: further callbacks of transformers.
        peft_config: train an adapter of peft (a LoraConfig, say) instead of the weights.

    Logged beside transformers' own: TRL's `rewards/chosen`, `rewards/rejected`, `rewards/accuracies`,
    `rewards/margins` and `logps/chosen`, `logps/rejected` (see `record_scores`); the parts of the loss (`loss/*`);
    clha's `pairs/masked` (share of neighbouring ranks that are masked) and `sft/gated` (share of rows whose best answer
    is not imitated); `reward_model/margins`; `tokens_per_second` (of unshared, unpadded sequences).

    Attributes:
        truncation: by split (train, validation), the prompts and responses that were too long.

    Raises:
        UserError: data or settings that would train something else than was meant.
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
        peft_config: Any = None,
    ) -> None:
        if processing_class is None:
            raise UserError("CLHATrainer needs processing_class: the tokenizer of the model.")
        policy = trained_policy(model, args.mixed_precision, peft_config)
        tokenized = {
            name: tokenize_preferences(rows, processing_class, args, name)
            for name, rows in (("train", train_dataset), ("validation", eval_dataset))
            if rows is not None
        }
        data = {name: rows for name, (rows, _) in tokenized.items()}
        self.truncation = {name: truncation for name, (_, truncation) in tokenized.items()}
        self.candidates = max((len(rewards) for rows in data.values() for rewards in rows["rewards"]), default=2)
        self.reward_gap = _reward_gap(args, data, self.candidates)
        super().__init__(
            model=policy,
            args=args,
            data_collator=PreferenceCollator(self.candidates),
            train_dataset=data.get("train"),
            eval_dataset=data.get("validation"),
            processing_class=processing_class,
            callbacks=callbacks,
        )
        longest = max(
            (tree.tokens for rows in data.values() for row in rows for tree in Row(**row).trees),
            default=args.max_length,
        )
        self.scorer = ResponseScorer(policy, args.packing, longest)
        if args.method in NEEDS_REFERENCE and data:
            if self.is_deepspeed_enabled and not has_partitions(policy):
                raise UserError(
                    f"{args.method} needs the log-probs of its starting model, which DeepSpeed puts on its device too "
                    "late: use ZeRO-3 (configs/zero3.yaml) and give CLHATrainer the model's name or its folder."
                )
            self.train_dataset = self._with_reference(self.train_dataset)
            self.eval_dataset = self._with_reference(self.eval_dataset)
        # compute_loss() divides by the counts of the whole step; the Trainer is to divide by nothing.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self._means = {"train": RunningMeans(), "eval": RunningMeans(), "filler": RunningMeans()}
        self._split: SplitLoss | None = None
        self._tokens, self._clock = 0, time.perf_counter()

    # --- one optimizer step ---------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of one step, and their `Totals` over all processes, which the loss divides by."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        own = add_totals([self._totals(batch) for batch in batches])
        return batches, Totals(*(self.accelerator.reduce(count.to(device), reduction="sum") for count in own))

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Totals | None = None,  # type: ignore[override]
    ) -> Tensor:
        """Forward and backward over the batch's micro-batches; gradients meet those of other processes in the last."""
        model.train()
        rows = inputs["rows"].rows
        totals = num_items_in_batch or self._totals(inputs)
        loss = torch.zeros((), device=self.args.device)
        cuts = self._cut(rows)
        for number, indices in enumerate(cuts):
            with self._gradients_meet(model, last=number == len(cuts) - 1):
                part = self._micro_loss(model, [rows[index] for index in indices], totals, "train")
                # Processes average their gradients, and the loss is a sum over them.
                part = part * self.accelerator.num_processes
                self.accelerator.backward(part, **self._unscaled)
            loss += part.detach()
        self._tokens += sum(row.sequence_tokens for row in rows)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Totals | None = None,  # type: ignore[override]
    ) -> Any:
        """The method's loss on a batch of the collator; its mean is over this batch, or over a step's `Totals`."""
        totals = num_items_in_batch or self._totals(inputs)
        loss = self._loss(model, inputs["rows"].rows, totals, "train" if model.training else "eval")
        return (loss, {}) if return_outputs else loss

    def _loss(self, model: nn.Module, rows: list[Row], totals: Totals, phase: str) -> Tensor:
        parts = [self._micro_loss(model, [rows[at] for at in indices], totals, phase) for indices in self._cut(rows)]
        return torch.stack(parts).sum()

    def _micro_loss(self, model: nn.Module, rows: list[Row], totals: Totals, phase: str) -> Tensor:
        batch = micro_batch(rows, self.candidates, self.args.device)
        with self.compute_loss_context_manager():
            sums = batch.dense(self.scorer.sums(model, batch.trees, batch.pack))
        scores = Scores(sums, batch.lengths, batch.rewards, batch.reference_sums)
        totals = Totals(*(count.to(sums.device) for count in totals))
        loss, parts = method_loss(self.args, scores, self.reward_gap, totals)
        self._require_finite(loss, sums, batch)
        record_scores(self._means[phase], self.args, scores, self.reward_gap)
        share = totals.rows.new_tensor(len(rows))
        for name, part in parts.items():  # parts add up over a step's micro-batches, as the loss does
            self._means[phase].add(name, part * totals.rows, share)
        return loss

    def _require_finite(self, loss: Tensor, sums: Tensor, batch: MicroBatch) -> None:
        if torch.isfinite(loss):
            return
        wrong = [
            row.id for row, finite in zip(batch.rows, torch.isfinite(sums).all(1).tolist(), strict=True) if not finite
        ]
        raise UserError(
            f"the loss is {loss.item()} at step {self.state.global_step}; log-probs are not finite in rows "
            f"{wrong[:EXAMPLES] or 'of this step'}. Lower the learning rate, use bfloat16 rather than float16, or look "
            "at the rewards of those rows (the stage rescore writes a report)."
        )

    def _totals(self, batch: Mapping[str, Any]) -> Totals:
        return totals_of(batch, reward_gap=self.reward_gap, reward_mask=self.args.reward_mask)

    def _cut(self, rows: list[Row]) -> list[list[int]]:
        """Micro-batches as indices into `rows`, as many in every process: FSDP's processes have to meet in each."""
        costs = [self.scorer.cost(row.trees) for row in rows]
        cuts = cut(costs, self.args.tokens_per_micro_batch)
        if self.accelerator.num_processes == 1:
            return cuts
        own = torch.tensor([len(cuts), -len(rows)], device=self.args.device)
        counts, sizes = self.accelerator.gather(own).view(-1, 2).unbind(1)
        return cut_into(costs, min(int(counts.max()), int(-sizes.max())))

    @property
    def _unscaled(self) -> dict[str, bool]:
        """DeepSpeed is not to divide by gradient_accumulation_steps either."""
        return {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}

    @contextlib.contextmanager
    def _gradients_meet(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Backward passes inside the block are not reduced over processes, unless it is the step's last."""
        state = self.accelerator.gradient_state
        sync = state.sync_gradients
        state._set_sync_gradients(sync and last)  # DeepSpeed asks for it in its backward()
        if last:
            wait: AbstractContextManager[Any] = contextlib.nullcontext()
        elif is_sharded(model):
            wait = self._defer_fsdp_gradient_reduction()
        else:
            wait = self.accelerator.no_sync(model)
        try:
            with wait:
                yield
        finally:
            state._set_sync_gradients(sync)

    # --- evaluation -----------------------------------------------------------------------------------------------

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, with the loss over the whole split."""
        rows = [Row(**row) for row in dataloader.dataset]
        rewards, lengths = reward_table(rows, self.candidates), length_table(rows, self.candidates)
        totals = self._totals({"rewards": rewards, "lengths": lengths})
        self._split = SplitLoss(self.accelerator, len(rows), self.args.eval_batch_size, totals)
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        assert output.metrics is not None
        output.metrics[f"{kwargs.get('metric_key_prefix', 'eval')}_loss"] = self._split.value()
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        """The loss alone: logits of a whole evaluation would not fit into memory.

        Of a batch without rows that count, one is computed all the same: all processes have to meet in it.
        """
        assert self._split is not None, "evaluation_loop() comes first"
        counted = self._split.next_batch()
        rows = inputs["rows"].rows[: max(counted, 1)]
        with torch.no_grad():
            loss = self._loss(model, rows, self._split.totals, "eval" if counted else "filler")
        self._means["eval"].add_nothing(self._means["filler"])
        self._split.add(loss if counted else torch.zeros_like(loss))
        return loss, None, None

    # --- the record -----------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last log line, as TRL does."""
        phase = "eval" if "eval_loss" in logs else "train"
        prefix = "eval_" if phase == "eval" else ""
        for name, value in self._means[phase].take(self.accelerator).items():
            logs[prefix + name] = round(value, 6)
        if phase == "train" and self._tokens:
            now = time.perf_counter()
            logs["tokens_per_second"] = round(self._tokens * self.accelerator.num_processes / (now - self._clock), 1)
            self._tokens, self._clock = 0, now
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Six for every parameter and token of unshared, unpadded sequences (PaLM's estimate, attention left out)."""
        tokens = sum(row.sequence_tokens for row in inputs["rows"].rows)
        return 6 * tokens * self._parameters

    @functools.cached_property
    def _parameters(self) -> int:
        model: Any = self.model
        return sum(size(parameter) for parameter in model.parameters())

    def _with_reference(self, data: Dataset | None) -> Dataset | None:
        if data is None:
            return None
        return with_reference_logps(
            data,
            self.accelerator.unwrap_model(self.model),
            self.scorer,
            self.args,
        )


def _reward_gap(args: CLHAConfig, data: Mapping[str, Dataset], candidates: int) -> float:
    """clha's gap in units of the rewards."""
    if args.reward_gap_quantile is None or "train" not in data:
        return args.reward_gap
    rewards = reward_table([Row(**row) for row in data["train"]], candidates)
    return reward_gap_at_quantile(rewards, args.reward_gap_quantile)
