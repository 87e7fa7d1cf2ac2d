"""Checkpoints of trainings in which every process holds a part of the model."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.distributed.checkpoint import load_optimizer_distributed, save_optimizer_distributed
from transformers.trainer import SCHEDULER_NAME

from clha_core.models.sharded import is_sharded, let_go, load_parts, save_parts, save_sharded, without_accelerates_fsdp

OPTIMIZER = "optimizer"


class ShardedTrainer(Trainer):
    """transformers' Trainer, which trains models that were divided as they were read, and their checkpoints.

    The Trainer refuses to write checkpoints of such models, because it would keep one process' part of the optimizer.
    Here every process writes its own. An adapter is the same in all processes: its checkpoints are the Trainer's.
    """

    def __init__(self, model: nn.Module, args: Any, **others: Any) -> None:
        save_only_model = args.save_only_model
        args.save_only_model = save_only_model or is_sharded(model)  # it refuses anything else
        super().__init__(model, args, **others)
        args.save_only_model = save_only_model

    def create_accelerator_and_postprocess(self) -> None:
        """Accelerate is not to divide the model once more."""
        with without_accelerates_fsdp():
            super().create_accelerator_and_postprocess()

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Over the parts of the weights, which whole ones stand in for after a forward pass."""
        trained: Any = self.model
        let_go(trained)
        return super().create_optimizer(model)

    @property
    def parted(self) -> PreTrainedModel | None:
        """The model, where processes hold parts of what is trained."""
        model: Any = self.model
        return model if is_sharded(model) and not isinstance(model, PeftModel) else None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write an ordinary checkpoint of the model or its adapter; all processes have to call this."""
        folder = Path(output_dir or str(self.args.output_dir))
        if self.parted is None:
            super().save_model(output_dir, _internal_call)
        elif _internal_call:
            save_parts(self.parted, folder)
        else:
            save_sharded(self.parted, folder)
            if self.is_world_process_zero() and self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.parted is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        optimizer: Any = self.optimizer
        scheduler: Any = self.lr_scheduler
        save_optimizer_distributed(self.parted, optimizer.optimizer, f"{output_dir}/{OPTIMIZER}")
        if self.is_world_process_zero():
            torch.save(scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.parted is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer: Any = self.optimizer
        scheduler: Any = self.lr_scheduler
        load_optimizer_distributed(self.parted, optimizer.optimizer, f"{checkpoint}/{OPTIMIZER}")
        scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.parted is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_parts(self.parted, Path(resume_from_checkpoint))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Weights that are tied to others (a head to the embedding) are not in checkpoints, and not missing."""
        tied = getattr(self.model, "all_tied_weights_keys", {})
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result)

    def _load_best_model(self) -> None:
        if self.parted is None:
            super()._load_best_model()
        else:
            load_parts(self.parted, Path(str(self.state.best_model_checkpoint)))
