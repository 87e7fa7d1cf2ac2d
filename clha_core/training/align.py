"""One training from parameters: the arguments, the run folder that survives a crash, the best checkpoint."""

import hashlib
import json
import pickle
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from datasets import Dataset
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from clha_core import losses, packing, tokenization
from clha_core.digest import file_digest, folder_digest
from clha_core.errors import UserError
from clha_core.models.loading import load_tokenizer, load_trained
from clha_core.params import OptimParams, Params, PolicyParams, TrainParams
from clha_core.progress import show_figures_on_bar
from clha_core.tracking.interface import Tracker
from clha_core.training.adapters import lora_config, save_adapted
from clha_core.training.config import CLHAConfig
from clha_core.training.curves import EvaluateLast, TrackingCallback, write_curves
from clha_core.training.model_card import write_model_card
from clha_core.training.trainer import CLHATrainer

METHOD_PARAMS = set(TrainParams.model_fields) - set(OptimParams.model_fields)


@dataclass(frozen=True)
class Outcome:
    """What a training ended in."""

    best_step: int
    metrics: dict[str, float]
    truncation: dict[str, dict[str, int]]


def training_config(optim: OptimParams, policy: PolicyParams, output_dir: Path) -> CLHAConfig:
    """Our parameters in transformers' words.

    Raises:
        UserError: weights in four bits, which cannot be trained, and no adapter to train instead.
    """
    if policy.quantization != "none" and not optim.lora.rank:
        raise UserError(
            f"policy.quantization: {policy.quantization} trains an adapter over frozen weights: set lora.rank of sft "
            "and train (16, say), or quantization to none."
        )
    method = (
        optim.model_dump(include={field.name for field in fields(CLHAConfig)} & METHOD_PARAMS)
        if isinstance(optim, TrainParams)
        else {"method": "sft"}
    )
    return CLHAConfig(
        output_dir=str(output_dir),
        **method,
        reference_cache=str(output_dir / "reference"),
        prompt_format=policy.prompt_format,
        max_length=policy.max_length,
        max_prompt_length=policy.max_prompt_length,
        learning_rate=optim.learning_rate,
        num_train_epochs=optim.epochs,
        max_steps=optim.max_steps or -1,
        rows_per_step=optim.rows_per_step,
        tokens_per_micro_batch=optim.tokens_per_micro_batch,
        warmup_steps=optim.warmup_share,
        lr_scheduler_type=optim.lr_scheduler,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        activation_checkpointing=optim.gradient_checkpointing,
        bf16=policy.dtype == "bfloat16",
        fp16=policy.dtype == "float16",
        seed=optim.seed,
        logging_steps=max(1, optim.eval_steps // 4),
        eval_strategy="steps",
        eval_steps=optim.eval_steps,
        save_strategy="steps",
        save_steps=optim.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        dataloader_pin_memory=False,
    )


def run_folder(scratch: Path, name: str, params: Params, optim: OptimParams, start: Path, data: Path) -> Path:
    """A folder for checkpoints that belongs to exactly this training.

    Its name tells apart parameters, launcher, starting weights, data and this package's code: what a bug left behind
    is not taken up by the code that mended it.
    """
    parts = [section.model_dump_json() for section in (optim, params.policy, params.runtime)]
    code = [Path(__file__).parent, *(Path(str(package.__file__)).parent for package in (losses, packing))]
    parts += [folder_digest(folder) for folder in (start, data, *code)]
    parts += [file_digest(Path(tokenization.__file__))]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return scratch / "trainings" / f"{name}-{digest[:16]}"


def last_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint that was written to its end; the Trainer writes its state last."""
    found = sorted(run.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
    for checkpoint in found:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)  # a crash cut it off
        else:
            return checkpoint
    return None


def align(
    start: Path,
    policy: PolicyParams,
    train: Dataset,
    validation: Dataset,
    config: CLHAConfig,
    optim: OptimParams,
    tracker: Tracker,
    *,
    out: Path,
    curves: Path,
) -> Outcome:
    """Train the model in `start`, write its best checkpoint on validation to `out` and the curves to `curves`.

    A training that was cut off goes on from its last checkpoint in `config.output_dir`, which is removed once the
    model is written.

    Raises:
        UserError: as CLHATrainer does, and where that checkpoint holds objects that are not a training's.
    """
    callbacks: list[TrainerCallback] = [TrackingCallback(tracker), EvaluateLast()]
    if optim.early_stopping:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=optim.early_stopping))
    trainer = CLHATrainer(
        load_trained(start, policy, config.mixed_precision),
        config,
        train,
        validation,
        processing_class=load_tokenizer(start, trust_remote_code=policy.trust_remote_code),
        callbacks=callbacks,
        peft_config=lora_config(optim.lora) if optim.lora.rank else None,
    )
    show_figures_on_bar(trainer, config.method)
    run = Path(str(config.output_dir))
    checkpoint = last_checkpoint(run)
    if checkpoint:
        print(f"going on from {checkpoint}")
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except pickle.UnpicklingError as error:  # torch reads optimizer and random state as tensors and numbers alone
        raise UserError(
            f"{checkpoint} holds more than a training leaves there: it is damaged, or not of this training. Remove "
            f"{run} to begin again."
        ) from error
    best = trainer.state.best_global_step or trainer.state.global_step
    at_best = next((entry for entry in trainer.state.log_history if entry["step"] == best and "eval_loss" in entry), {})
    names = ("eval_loss", "eval_rewards/accuracies", "eval_rewards/margins")
    outcome = Outcome(
        best_step=best,
        metrics={name.removeprefix("eval_"): at_best[name] for name in names if name in at_best},
        truncation={split: asdict(found) for split, found in trainer.truncation.items()},
    )
    if optim.lora.rank:
        save_adapted(trainer, start, policy, out)
    else:
        trainer.save_model(str(out))
    if trainer.is_world_process_zero():
        (out / "training_args.bin").unlink(missing_ok=True)  # a pickle, and it names this machine
        write_model_card(out, config, optim, outcome.best_step, outcome.metrics, rows=len(train))
        write_curves(trainer.state.log_history, curves)
        shutil.rmtree(run, ignore_errors=True)
    return outcome
