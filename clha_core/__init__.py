"""CLHA: contrastive learning for human alignment.

The library's front door. Names are imported on first use, so that `clha --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clha_core.losses import CLHALoss as CLHALoss
    from clha_core.losses import clha_loss as clha_loss
    from clha_core.losses import pro_loss as pro_loss
    from clha_core.training.config import CLHAConfig as CLHAConfig
    from clha_core.training.trainer import CLHATrainer as CLHATrainer

_HOMES = {
    "CLHAConfig": "clha_core.training.config",
    "CLHALoss": "clha_core.losses",
    "CLHATrainer": "clha_core.training.trainer",
    "clha_loss": "clha_core.losses",
    "pro_loss": "clha_core.losses",
}
__all__ = ["CLHAConfig", "CLHALoss", "CLHATrainer", "clha_loss", "pro_loss"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clha_core' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
