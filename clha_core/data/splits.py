"""Which split a prompt belongs to: decided by a seeded hash of the prompt alone.

So all rows of a prompt stay together, and a row does not move when others are added.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

from clha_core.data.dialogue import Turn

Split = Literal["train", "validation", "test"]


def prompt_key(prompt: Iterable[Turn], seed: int) -> bytes:
    """16 bytes that identify a prompt and order all prompts at random, by `seed`."""
    # Control characters as separators: no prompt reads as another one with its turns cut elsewhere.
    text = "\x1e".join(f"{turn['role']}\x1f{turn['content']}" for turn in prompt)
    return hashlib.blake2b(f"{seed}\x1d{text}".encode(), digest_size=16).digest()


def assign_split(key: bytes, share: float, carve_test: bool) -> Split:
    """The split of a prompt of the source's train split.

    Args:
        key: from `prompt_key`.
        share: of the prompts for validation, and the same again for test where test has to be carved; below 0.5.
        carve_test: the source has no test split of its own.
    """
    position = int.from_bytes(key[:8], "big") / 2**64  # uniform in [0, 1)
    if position < share:
        return "validation"
    if carve_test and position >= 1 - share:
        return "test"
    return "train"
