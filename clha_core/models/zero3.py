"""Models of which every process holds a part (DeepSpeed ZeRO-3), outside of DeepSpeed's own training.

transformers hands each weight to DeepSpeed as it is read, and what is left in the model is empty. DeepSpeed's engine
gathers weights around the calls of modules, but there is no engine before the training.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from transformers import TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config


def is_partitioned(tensor: Tensor) -> bool:
    """Whether a weight is DeepSpeed's, and empty unless it is gathered."""
    return hasattr(tensor, "ds_id")


def has_partitions(model: nn.Module) -> bool:
    """Whether processes hold parts of the model, with an adapter on it or without."""
    return any(is_partitioned(weight) for weight in model.parameters())


def size(weight: Tensor) -> int:
    """Elements of a weight, wherever they are."""
    elements: int = getattr(weight, "ds_numel", weight.numel())
    return elements


@contextmanager
def gathered(*tensors: Tensor) -> Iterator[None]:
    """Inside the block, these are whole in every process; all processes have to enter it."""
    with _gathering(tensors):
        yield


@contextmanager
def gathered_in_calls(model: nn.Module) -> Iterator[None]:
    """Inside the block, a module's own weights are whole while it is called; for forward passes without gradients.

    All processes have to call the same modules. Models that are whole anyway are left alone.
    """
    with ExitStack() as stack:
        for module in model.modules() if has_partitions(model) else ():
            own = list(module.parameters(recurse=False))
            if own:
                around = _gathering(own)

                def enter(*_: Any, around: Any = around) -> None:
                    around.__enter__()

                def leave(*_: Any, around: Any = around) -> None:
                    around.__exit__(None, None, None)

                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


@contextmanager
def without_zero3(args: TrainingArguments) -> Iterator[None]:
    """Inside the block, models are read whole by the process that reads them."""
    config = getattr(args, "hf_deepspeed_config", None)
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            set_hf_deepspeed_config(config)


def _gathering(tensors: Sequence[Tensor]) -> Any:
    if not any(is_partitioned(tensor) for tensor in tensors):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(tensors)
