"""The model that CLHATrainer trains, from what it was given."""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from clha_core.errors import UserError
from clha_core.models.sharded import is_sharded, sharded_loading, sharding_wanted, without_accelerates_fsdp


def trained_policy(model: PreTrainedModel | str | Path, mixed_precision: str, peft_config: Any) -> nn.Module:
    """A causal language model, divided over FSDP's processes where these are wanted; an adapter around it, if any.

    Args:
        model: the model, or the name or folder of one.
        mixed_precision: as transformers names it, for the parts of a divided model.
        peft_config: of the adapter; None trains the weights.

    Raises:
        UserError: processes of FSDP were started, and the model is there whole in each.
    """
    if isinstance(model, str | Path):
        options = sharded_loading(mixed_precision)
        with without_accelerates_fsdp():
            model = AutoModelForCausalLM.from_pretrained(model, use_safetensors=True, **options)
    if sharding_wanted() and not is_sharded(model):
        raise UserError(
            "This model was read whole in every process, so FSDP would divide it too late: give CLHATrainer its "
            "name or its folder, or start with configs/ddp.yaml."
        )
    if peft_config is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, peft_config)
