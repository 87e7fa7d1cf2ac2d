"""Two systems' answers to the same prompts, out of the evaluation's table."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from clha_core.errors import UserError
from clha_core.evaluation.summary import HUMAN, gold_column, response_column, reward_column


def read_pairs(generations: Path, system: str, against: str) -> pd.DataFrame:
    """A row per test prompt with the answers of both systems.

    Args:
        generations: generations.parquet, written by the evaluate stage.
        system: its wins are counted; "human" names the human-chosen responses.
        against: the other one.

    Returns:
        The columns id, subset, prompt, response (the system's) and other (texts without blanks around them), pair
        (digest of prompt, response and other), identical (bool), and where they are known reward_difference and
        gold_difference (system minus other).

    Raises:
        UserError: no such file, no such system, one system on both sides, no rows, an id that occurs twice, a
            reward that is not finite.
    """
    if not generations.exists():
        raise UserError(f"{generations} is not here: run `dvc repro evaluate` (or `dvc pull`), or give --generations.")
    table = pd.read_parquet(generations)
    known = [str(column).removesuffix("_response") for column in table if str(column).endswith("_response")]
    known += [HUMAN] if "human_chosen" in table else []
    for name in (system, against):
        if name not in known:
            raise UserError(f"{generations} has no answers of {name!r}; it has: {', '.join(known)}.")
    if system == against:
        raise UserError(f"{system!r} cannot be compared with itself: name two systems of {', '.join(known)}.")
    missing = {"id", "subset", "prompt"} - set(table.columns)
    if missing:
        raise UserError(f"{generations} lacks the columns {sorted(missing)}: run the evaluate stage again.")
    if table.empty:
        raise UserError(f"{generations} has no rows: the test split is empty.")
    if table["id"].duplicated().any():
        raise UserError(f"{generations} has the id {table['id'][table['id'].duplicated()].iloc[0]!r} twice.")

    pairs = table[["id", "subset", "prompt"]].copy()
    pairs["prompt"] = pairs["prompt"].str.strip()
    pairs["response"] = table[response_column(system)].str.strip()
    pairs["other"] = table[response_column(against)].str.strip()
    pairs["pair"] = [
        pair_digest(*texts) for texts in zip(pairs["prompt"], pairs["response"], pairs["other"], strict=True)
    ]
    pairs["identical"] = pairs["response"] == pairs["other"]
    for name, column in (("reward_difference", reward_column), ("gold_difference", gold_column)):
        if column(system) in table and column(against) in table:
            pairs[name] = table[column(system)].astype(float) - table[column(against)].astype(float)
            if not np.isfinite(pairs[name]).all():
                raise UserError(f"{generations} has a {name} that is not finite: run the evaluate stage again.")
    return pairs


def sample_pairs(pairs: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """At most `count` of the pairs at random, so that their win rate estimates that of all; raters and judges who use
    the same numbers see the same pairs."""
    return pairs.iloc[np.random.default_rng(seed).permutation(len(pairs))[:count]]


def pair_digest(prompt: str, response: str, other: str) -> str:
    """Which texts were compared: results about other texts do not belong together, even for the same prompt id."""
    return hashlib.sha256(json.dumps([prompt, response, other]).encode()).hexdigest()[:16]
