"""All of params.yaml, read and checked."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from clha_core import paths
from clha_core.errors import UserError
from clha_core.params.data import CandidatesParams, DataParams, SampleParams, ValidateParams
from clha_core.params.models import PolicyParams, RescoreParams, RewardModelParams
from clha_core.params.running import EvaluateParams, RegistryParams, RuntimeParams
from clha_core.params.section import Section
from clha_core.params.training import SFTParams, TrainParams

SHOWN_CHARS = 60
# What a reader of YAML raises beside its own errors: bytes that are no text, dates and numbers that there are not
# (2026-13-45), nesting without an end.
NOT_YAML = (UnicodeDecodeError, ValueError, OverflowError, RecursionError)


class Params(Section):
    """All of params.yaml."""

    data: DataParams
    sample: SampleParams
    validate_: ValidateParams = Field(alias="validate")
    policy: PolicyParams
    candidates: CandidatesParams
    reward_model: RewardModelParams
    rescore: RescoreParams
    sft: SFTParams
    train: TrainParams
    evaluate: EvaluateParams
    runtime: RuntimeParams
    registry: RegistryParams


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested keys joined by dots, as `dvc exp run -S` writes them."""
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from flatten(value, name)
        else:
            yield name, value


def parse_params(values: Any, origin: str) -> Params:
    """Check a plain mapping against the model; `origin` names it in errors.

    Raises:
        UserError: every wrong, missing or unknown key, one a line.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{origin} does not fit:\n" + "\n".join(_sentences(error))) from None


def _sentences(error: ValidationError) -> Iterator[str]:
    """A line for every wrong key; an unknown one that looks like a missing one is taken for a typo of it."""
    found = {".".join(map(str, each["loc"])) or "(whole file)": each for each in error.errors()}
    missing = [name for name, each in found.items() if each["type"] == "missing"]
    typos = {
        name: close[0]
        for name, each in found.items()
        if each["type"] == "extra_forbidden" and (close := get_close_matches(name, missing, n=1))
    }
    for name, each in found.items():
        if name in typos:
            yield f"  {name}: there is no such parameter; did you mean {typos[name]}?"
        elif each["type"] == "extra_forbidden":
            yield f"  {name}: there is no such parameter."
        elif each["type"] == "missing":
            if name not in typos.values():
                yield f"  {name}: is missing."
        else:
            value = each["input"]
            found_value = "" if isinstance(value, dict | list) else f"; it is {repr(value)[:SHOWN_CHARS]}"
            yield f"  {name}: {each['msg']}{found_value}."


def load_params(path: Path = paths.PARAMS) -> Params:
    """Read params.yaml.

    Raises:
        UserError: no such file, not YAML, or a key that is missing, unknown or out of bounds.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not here: run the command from the project's root.") from None
    except (*NOT_YAML, yaml.YAMLError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    return parse_params(values, str(path))
