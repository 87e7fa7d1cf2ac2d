"""The key of a blinded set: which system wrote which answer. It stays with whoever evaluates."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clha_core.errors import UserError


class KeyPair(BaseModel):
    """A pair of answers that was drawn."""

    model_config = ConfigDict(extra="forbid")

    id: str  # of the prompt, in the evaluation's table
    subset: str
    pair: str  # digest of the texts
    reward_difference: float | None = None  # system minus the other one
    gold_difference: float | None = None


class KeyItem(KeyPair):
    """A pair that raters see."""

    item: str  # what raters know it by
    a: str  # the system whose answer is shown as A


class Key(BaseModel):
    """The key file."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["clha-assessment-key"] = "clha-assessment-key"
    export: str  # digest of what raters see; their files name it
    system: str
    against: str
    seed: int
    items: list[KeyItem]
    identical: list[KeyPair]  # not shown: both systems gave the same answer


def write_key(key: Key, path: Path) -> None:
    """Write a key file; equal keys are equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(key.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_key(path: Path) -> Key:
    """Read a key file.

    Raises:
        UserError: no such file, or not a key.
    """
    try:
        return Key.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"the key {path} cannot be read ({error.strerror}): give --key the key.json of the export."
        ) from None
    except (ValidationError, UnicodeDecodeError):
        raise UserError(f"{path} is not a key: give --key the key.json that `clha assess export` wrote.") from None
