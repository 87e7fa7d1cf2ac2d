"""What every stage does first and last: threads, seeds, metrics files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clha_core.params import Params


def prepare_torch(params: Params, seed: int) -> None:
    """Threads and seeds, and algorithms that give the same bits every time."""
    import torch
    from transformers import set_seed

    torch.set_num_threads(params.runtime.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    set_seed(seed)


def is_main_process() -> bool:
    """False in all but one of the processes that accelerate starts; that one keeps the record."""
    return os.environ.get("RANK", "0") == "0"


def write_metrics(metrics: Mapping[str, Any], path: Path) -> None:
    """A DVC metrics file: sorted keys, so that equal metrics are equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n", encoding="utf-8")
