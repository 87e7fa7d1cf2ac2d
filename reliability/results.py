"""What the campaigns found, on disk: docs/reliability.md says it in words."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def write(path: Path, content: Any) -> None:
    """Write a result whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
