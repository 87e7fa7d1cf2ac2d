"""A blinded set: which answers are shown, in which order, and which of the two is A. All of it is drawn from a seed."""

import hashlib
import json
from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd

from clha_core.assessment.key import Key, KeyItem, KeyPair
from clha_core.errors import UserError
from clha_core.judging.criteria import criterion_of


@dataclass(frozen=True)
class Item:
    """All that a rater learns about a pair."""

    item: str
    criterion: str
    prompt: str
    a: str
    b: str


@dataclass(frozen=True)
class BlindSet:
    """What raters see, and its digest."""

    export: str
    items: list[Item]


def blind(pairs: pd.DataFrame, system: str, against: str, *, seed: int) -> tuple[BlindSet, Key]:
    """Shuffle pairs and hide who wrote what.

    Each system is A in half of the items. Pairs of identical answers are not shown, as there is nothing to choose:
    the key keeps them as ties.

    Args:
        pairs: what sample_pairs() returns.

    Raises:
        UserError: nothing to show: all answers are identical.
    """
    rng = np.random.default_rng(seed)
    shuffled = pairs.iloc[rng.permutation(len(pairs))]
    shown, identical = shuffled[~shuffled["identical"]], shuffled[shuffled["identical"]]
    if shown.empty:
        raise UserError(
            f"{system} and {against} give identical answers to all {len(pairs)} prompts: nothing to assess."
        )
    system_is_a = rng.permutation(np.arange(len(shown)) % 2 == rng.integers(2))

    width = max(3, len(str(len(shown))))
    items, key_items = [], []
    for place, (row, is_a) in enumerate(zip(shown.to_dict("records"), system_is_a, strict=True), start=1):
        name = f"{place:0{width}d}"
        a, b = (row["response"], row["other"]) if is_a else (row["other"], row["response"])
        items.append(Item(name, criterion_of(row["subset"]).name, row["prompt"], a, b))
        key_items.append(KeyItem(item=name, a=system if is_a else against, **_known(row)))
    export = hashlib.sha256(json.dumps([astuple(item) for item in items]).encode()).hexdigest()[:16]
    key = Key(
        export=export,
        system=system,
        against=against,
        seed=seed,
        items=key_items,
        identical=[KeyPair(**_known(row)) for row in identical.to_dict("records")],
    )
    return BlindSet(export, items), key


def _known(row: dict) -> dict:
    return {name: row[name] for name in KeyPair.model_fields if name in row}
