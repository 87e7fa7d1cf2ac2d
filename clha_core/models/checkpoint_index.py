"""The files of a checkpoint, looked at before anything of them is loaded."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePath

from clha_core.errors import UserError


def require_own_shards(folder: Path) -> None:
    """Check the index of a checkpoint in shards: transformers opens whatever file it names.

    Raises:
        UserError: the index is not readable, or names anything but safetensors files of this folder.
    """
    for index in sorted(folder.glob("*.index.json")):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index} is no index of a checkpoint ({type(error).__name__}: {error}).") from None
        if foreign := sorted(map(str, _foreign(names))):
            raise UserError(
                f"{index} names {foreign[0]!r}: a checkpoint is read from safetensors files of its own folder alone."
            )


def _foreign(names: set[object]) -> Iterator[object]:
    for name in names:
        if not isinstance(name, str) or PurePath(name).name != name or not name.endswith(".safetensors"):
            yield name
