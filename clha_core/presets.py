"""Presets: named sets of values for params.yaml.

Every preset sets the same keys (tests/test_presets_and_params.py), so going from one to another needs no way back.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from clha_core.errors import UserError
from clha_core.params import flatten
from clha_core.params.rewrite import rewrite_params

PRESETS = Path("presets")


def preset_names(folder: Path = PRESETS) -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_preset(name: str, folder: Path = PRESETS) -> dict[str, Any]:
    """The nested values of a preset.

    Raises:
        UserError: no such preset.
    """
    names = preset_names(folder)
    if not names:
        raise UserError(f"{folder} is not here: run the command from the project's root.")
    if name not in names:
        raise UserError(f"there is no preset {name!r}; there are: {', '.join(names)}.")
    return yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))


def merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `overrides` laid over it, section by section."""
    result = dict(values)
    for key, value in overrides.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return result


def apply_preset(name: str, params_file: Path) -> dict[str, Any]:
    """Rewrite `params_file` for a preset, keeping its comments.

    Returns:
        The keys that changed, dotted, with their new values.

    Raises:
        UserError: no such preset, or the result is not valid.
    """
    preset = load_preset(name, params_file.parent / PRESETS)
    return rewrite_params(params_file, dict(flatten(preset)), f"preset {name}")
