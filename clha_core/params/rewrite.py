"""Rewriting params.yaml by keys, so that comments, order and all other keys stay as a person wrote them.

And as DVC writes them (`dvc exp run --set-param`), so that neither reformats what the other wrote.
"""

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from clha_core.errors import UserError
from clha_core.params import parse_params
from clha_core.params.file import NOT_YAML


def rewrite_params(path: Path, values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Set keys of a params.yaml.

    Args:
        values: by dotted key, as `dvc exp run --set-param` names them.
        origin: what asks for it, for errors.

    Returns:
        The keys whose values changed.

    Raises:
        UserError: the file is not YAML, has no such key, or would not be valid; it is left as it was.
    """
    round_trip = YAML()
    round_trip.preserve_quotes = True
    round_trip.width = 120
    try:
        document = round_trip.load(path.read_text(encoding="utf-8"))
    except (*NOT_YAML, YAMLError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    changed = {}
    for dotted, value in values.items():
        *sections, key = dotted.split(".")
        section = document
        for part in sections:
            section = section.get(part) if isinstance(section, MutableMapping) else None
        if not isinstance(section, MutableMapping) or key not in section:
            raise UserError(f"{origin}: {path} has no key {dotted}.")
        if section[key] != value:
            section[key] = value
            changed[dotted] = value
    parse_params(document, origin)
    with path.open("w", encoding="utf-8") as file:
        round_trip.dump(document, file)
    return changed
