"""Results on disk: a folder a study, one JSON a tuning or cell, found again only by who would compute the same."""

import hashlib
import json
from pathlib import Path
from typing import Any

from clha_core.params import Params
from clha_core.replacing import replacing

RESULTS = Path(__file__).with_name("results")


def path_of(study: str, name: str) -> Path:
    """Where the result of a tuning or cell is."""
    return RESULTS / study / f"{name}.json"


def key_of(world: Params, prompts: int) -> str:
    """sha256 over what all results of a world depend on, but the code: its commit stands by each training's result."""
    content = {
        "world": world.model_dump(mode="json", by_alias=True, exclude={"runtime", "registry"}),
        "prompts": prompts,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read(path: Path, key: str) -> dict[str, Any] | None:
    """The result at `path`, if it is of this key."""
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return result if result["key"] == key else None


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
