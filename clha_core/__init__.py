"""CLHA: contrastive learning for human alignment.

The library's front door. Names are imported on first use, so that `clha --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clha_core.losses import CLHALoss as CLHALoss
    from clha_core.losses import ORPOLoss as ORPOLoss
    from clha_core.losses import Totals as Totals
    from clha_core.losses import batch_totals as batch_totals
    from clha_core.losses import clha_loss as clha_loss
    from clha_core.losses import dpo_loss as dpo_loss
    from clha_core.losses import ipo_loss as ipo_loss
    from clha_core.losses import orpo_loss as orpo_loss
    from clha_core.losses import pro_loss as pro_loss
    from clha_core.losses import reward_gap_at_quantile as reward_gap_at_quantile
    from clha_core.losses import rrhf_loss as rrhf_loss
    from clha_core.losses import sft_loss as sft_loss
    from clha_core.losses import simpo_loss as simpo_loss
    from clha_core.training.config import CLHAConfig as CLHAConfig
    from clha_core.training.trainer import CLHATrainer as CLHATrainer

_HOMES = {
    "CLHAConfig": "clha_core.training.config",
    "CLHALoss": "clha_core.losses",
    "CLHATrainer": "clha_core.training.trainer",
    "ORPOLoss": "clha_core.losses",
    "Totals": "clha_core.losses",
    "batch_totals": "clha_core.losses",
    "clha_loss": "clha_core.losses",
    "dpo_loss": "clha_core.losses",
    "ipo_loss": "clha_core.losses",
    "orpo_loss": "clha_core.losses",
    "pro_loss": "clha_core.losses",
    "reward_gap_at_quantile": "clha_core.losses",
    "rrhf_loss": "clha_core.losses",
    "sft_loss": "clha_core.losses",
    "simpo_loss": "clha_core.losses",
}
__all__ = [
    "CLHAConfig",
    "CLHALoss",
    "CLHATrainer",
    "ORPOLoss",
    "Totals",
    "batch_totals",
    "clha_loss",
    "dpo_loss",
    "ipo_loss",
    "orpo_loss",
    "pro_loss",
    "reward_gap_at_quantile",
    "rrhf_loss",
    "sft_loss",
    "simpo_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clha_core' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
