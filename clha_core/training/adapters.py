"""LoRA through peft: the adapter that is trained, and the checkpoint that it ends in."""

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from torch.distributed.tensor.experimental import implicit_replication
from transformers import Trainer

from clha_core.models.loading import load_policy
from clha_core.models.sharded import is_sharded, save_sharded, sharded_loading, sharding_wanted
from clha_core.models.zero3 import without_zero3
from clha_core.params import LoraParams, PolicyParams

ADAPTER = "adapter"


def lora_config(params: LoraParams) -> LoraConfig:
    """Our parameters in peft's words."""
    targets: Any = params.targets if params.targets == "all-linear" else params.targets.split(",")
    return LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def save_adapted(trainer: Trainer, start: Path, policy: PolicyParams, out: Path) -> None:
    """Write the adapter to `out`/adapter, and to `out` the model in `start` with the adapter merged.

    It is merged into weights read anew: those of the training may have four bits. All processes have to call this;
    where they hold parts of the model, each merges its own.
    """
    trainer.save_model(str(out / ADAPTER))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero() or sharding_wanted():
        loading = sharded_loading("no")
        with without_zero3(trainer.args):
            before = load_policy(start, dtype="float32", trust_remote_code=policy.trust_remote_code, **loading)
            adapted = PeftModel.from_pretrained(before, str(out / ADAPTER))
        with implicit_replication():  # an adapter is whole in every process
            merged = adapted.merge_and_unload()
        save_sharded(merged, out) if is_sharded(merged) else merged.save_pretrained(str(out))
    if trainer.is_world_process_zero():
        for file in (out / ADAPTER).iterdir():
            if not file.name.startswith("adapter_"):
                file.unlink()  # the tokenizer lies in `out`; training_args.bin is a pickle
        trainer.processing_class.save_pretrained(str(out))  # type: ignore[union-attr]
