"""What the campaigns found, on disk: docs/reliability.md says it in words."""

import json
from pathlib import Path
from typing import Any

from clha_core.replacing import replacing

RESULTS = Path(__file__).with_name("results")


def write(path: Path, content: Any) -> None:
    """Write a result whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
