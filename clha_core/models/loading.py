"""Loading policies and reward models: local folders and hub ids alike, safetensors only, no remote code unasked.

A stage's output folder holds either a checkpoint or `pointer.json`, which names a model that lives elsewhere, pinned
to a commit. So a 7B model is a dependency that DVC versions without copying it.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

import clha_core.models.gpt_neox_reward  # noqa: F401  (registers the paper's reward model with the Auto classes)
from clha_core.digest import folder_digest
from clha_core.errors import UserError
from clha_core.models.checkpoint_index import require_own_shards
from clha_core.models.sharded import sharded_loading, sharding_wanted, without_accelerates_fsdp
from clha_core.params import PolicyParams

POINTER = "pointer.json"


@dataclass(frozen=True)
class ModelSource:
    """Where a model is: a folder or a hub id, with its commit where it is on the hub."""

    name: str
    revision: str | None = None


def on_device(model: PreTrainedModel, device: torch.device | str | None = None) -> PreTrainedModel:
    """The model on a device; without one named, on the accelerator where there is one, else on the CPU."""
    device = device or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return nn.Module.to(model, device)


def write_pointer(model: str, revision: str | None, out: Path) -> None:
    """Write a pointer to a checkpoint folder or to a hub model, pinned to the commit that `revision` names today.

    Raises:
        UserError: neither a folder nor reachable on the hub.
    """
    if Path(model).is_dir():
        # The digest makes other weights in the same folder another output, so that what follows runs again.
        content = {"model": model, "revision": None, "digest": folder_digest(Path(model))}
    else:
        content = {"model": model, "revision": resolve_revision(model, revision)}
    out.mkdir(parents=True, exist_ok=True)
    (out / POINTER).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def resolve_revision(model: str, revision: str | None) -> str:
    """The commit of a hub model."""
    from huggingface_hub import HfApi

    try:
        sha = HfApi().model_info(model, revision=revision).sha
    except Exception as error:  # the errors of the hub and of the HTTP clients below it share no base class
        raise UserError(
            f"model {model!r} (revision {revision or 'main'}) is neither a folder nor reachable on the hub: {error}. "
            "Check the name, the network and, for gated models, HF_TOKEN."
        ) from None
    if sha is None:
        raise UserError(f"the hub names no commit for model {model!r}.")
    return sha


def follow_pointer(folder: Path) -> ModelSource:
    """The model behind a stage's output folder.

    Raises:
        UserError: the folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not here: run `dvc repro` (or `dvc pull`) first.")
    pointer = folder / POINTER
    if not pointer.exists():
        return ModelSource(str(folder))
    content = json.loads(pointer.read_text(encoding="utf-8"))
    return ModelSource(content["model"], content["revision"])


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of the model behind `folder`; a missing pad token becomes the EOS, which masks always hide."""
    source = follow_pointer(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.name, revision=source.revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # whatever its files make a library do: they may be anybody's
        raise UserError(f"no tokenizer could be loaded from {source.name}: {_reason(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(folder: Path, *, dtype: str, trust_remote_code: bool = False, **options: Any) -> PreTrainedModel:
    """A causal language model in `dtype`; on the CPU, unless further options of `from_pretrained` say otherwise."""
    return _load(AutoModelForCausalLM, folder, dtype=dtype, trust_remote_code=trust_remote_code, **options)


def load_trained(folder: Path, params: PolicyParams, mixed_precision: str = "no") -> PreTrainedModel:
    """A policy to train: weights in fp32, or in four bits under an adapter (QLoRA).

    Trainings autocast fp32 weights to `policy.dtype`: the steps of AdamW are lost in bf16's eight bits. Started for
    FSDP or ZeRO-3, each process holds its part of the weights.

    Args:
        mixed_precision: of the training, as accelerate calls it.

    Raises:
        UserError: four bits without bitsandbytes, or with FSDP or ZeRO-3.
    """
    if params.quantization == "none":
        return load_policy(
            folder,
            dtype="float32",
            trust_remote_code=params.trust_remote_code,
            **sharded_loading(mixed_precision),
        )
    if sharding_wanted() or is_deepspeed_zero3_enabled():
        raise UserError(
            f"policy.quantization: {params.quantization} cannot be divided by FSDP or ZeRO-3: choose runtime.launcher "
            "python or configs/ddp.yaml, or quantization none."
        )
    if find_spec("bitsandbytes") is None:
        raise UserError("policy.quantization: nf4 needs the package bitsandbytes (pip install 'clha[qlora]').")
    return _load(
        AutoModelForCausalLM,
        folder,
        dtype="bfloat16",
        trust_remote_code=params.trust_remote_code,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        ),
    )


def load_reward_model(
    folder: Path, *, dtype: str, trust_remote_code: bool = False, device: torch.device | str | None = None
) -> PreTrainedModel:
    """A reward model with one logit, in evaluation mode (no dropout), on a device as `on_device` says.

    Raises:
        UserError: more than one logit, or weights that the checkpoint does not have and that would be random.
    """
    model = _load(AutoModelForSequenceClassification, folder, dtype=dtype, trust_remote_code=trust_remote_code)
    labels = getattr(model.config, "num_labels", 1)
    if not hasattr(model, "out_proj") and labels != 1:
        raise UserError(f"{model.config.name_or_path} has {labels} labels; a reward model has one logit.")
    return on_device(model, device).eval()


def _load(auto_class: Any, folder: Path, *, dtype: str, trust_remote_code: bool, **options: Any) -> PreTrainedModel:
    source = follow_pointer(folder)
    require_own_shards(Path(source.name))
    try:
        with without_accelerates_fsdp():
            model, info = auto_class.from_pretrained(
                source.name,
                revision=source.revision,
                dtype=getattr(torch, dtype),
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # as above
        raise UserError(
            f"no model could be loaded from {source.name}: {_reason(error)}\nOnly safetensors are read: convert a "
            "pickled checkpoint (.bin) first, for example with the hub's conversion space."
        ) from error
    if info["missing_keys"]:
        raise UserError(
            f"{source.name} lacks weights, which would be random: {sorted(info['missing_keys'])[:5]}. "
            f"It is not a checkpoint for {type(model).__name__}."
        )
    return model


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
