"""Calling a module and running something else, between the module's own hooks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def redirected(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside the block, calling `module` (or what wraps it) runs `forward`, between the module's usual hooks.

    DDP, FSDP and ZeRO gather weights and reduce gradients in hooks around a module's call, so a part of a model is not
    to be called past them.
    """
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
