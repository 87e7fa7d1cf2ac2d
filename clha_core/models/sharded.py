"""Models of which every process holds a part (FSDP2): transformers divides them before it reads any weight.

accelerate's own FSDP divides a model that one process has read whole. So of `accelerate launch` with a configuration
for FSDP only the wish is taken, and transformers does the rest.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from accelerate.utils import parse_flag_from_env, patch_environment
from torch import nn
from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

# Weights in one file of parts: a process copies its share of them to write it.
FILE_BYTES = 32 * 2**20


def sharding_wanted() -> bool:
    """Whether this is one of several processes that were started with a configuration for FSDP."""
    wanted: bool = parse_flag_from_env("ACCELERATE_USE_FSDP")
    return wanted and int(os.environ.get("WORLD_SIZE", "1")) > 1


def sharded_loading(mixed_precision: str) -> dict[str, Any]:
    """Options of `from_pretrained` with which every process reads its part of a checkpoint; none where not wanted.

    Args:
        mixed_precision: of the training, as accelerate calls it. With bf16 weights are gathered in bfloat16, while the
            parts and the sums of their gradients stay in float32.
    """
    if not sharding_wanted():
        return {}
    processes = int(os.environ["WORLD_SIZE"])
    return {
        "distributed_config": DistributedConfig(fsdp_size=processes, fsdp_mixed_precision=mixed_precision == "bf16")
    }


@contextmanager
def without_accelerates_fsdp() -> Iterator[None]:
    """Inside the block, transformers and accelerate do not know that FSDP is wanted of accelerate."""
    with patch_environment(accelerate_use_fsdp="false"):
        yield


def is_sharded(model: nn.Module) -> bool:
    """Whether processes hold parts of the model, with an adapter on it or without."""
    return getattr(model, "is_distributed_loading_by_transformers", False)


def let_go(model: nn.Module) -> None:
    """Keep of the weights nothing but this process' part: a forward pass leaves the last layers gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def save_parts(model: PreTrainedModel, folder: Path) -> None:
    """Every process writes its part to `folder`; all have to call this."""
    state: dict[str, Any] = get_model_state_dict(model)
    files: dict[str, int] = {}
    size = 0
    for name, weight in state.items():
        size += weight.nbytes
        files[name] = 1 + size // FILE_BYTES
    # Not save_pretrained's distributed checkpoint: that copies all of a process' part, twice, before it writes.
    save(state, storage_writer=HuggingFaceStorageWriter(str(folder), files, save_distributed=True))


def load_parts(model: nn.Module, folder: Path) -> None:
    """Every process takes its part of what `save_parts` wrote, from however many processes; all have to call this."""
    state = get_model_state_dict(model)
    load(state, storage_reader=HuggingFaceStorageReader(str(folder)))
    set_model_state_dict(model, state)


def save_sharded(model: PreTrainedModel, out: Path) -> None:
    """Write the checkpoint that `save_pretrained` writes of a whole model; all processes have to call this.

    Each writes its part. The first process then copies them together, with one tensor in memory at a time.
    """
    parts = out / "parts"
    save_parts(model, parts)
    if dist.get_rank() == 0:
        tied = model.all_tied_weights_keys.keys()
        one_file = {name: 1 for name in model.state_dict() if name not in tied}
        consolidate_safetensors_files(str(parts), str(out), one_file)
        (out / "model-00001-of-00001.safetensors").rename(out / SAFE_WEIGHTS_NAME)
        (out / SAFE_WEIGHTS_INDEX_NAME).unlink()
        shutil.rmtree(parts)
        model.config.save_pretrained(out)
        if model.can_generate():
            model.generation_config.save_pretrained(out)
    dist.barrier()
