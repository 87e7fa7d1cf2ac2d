"""The labelled pairs of rescored rows as numbers: a few bytes a row stay, the texts of a few rows only."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from clha_core.errors import UserError

TOTAL = "total"
MOST_CONTRADICTED = 20


@dataclass(frozen=True)
class Pairs:
    """What the report is made from.

    Attributes:
        table: a row per preference row, in the order of the data: `subset` (a category), `difference` (reward of the
            chosen minus reward of the rejected response), and in characters `chosen_chars`, `rejected_chars` and
            `prompt_chars` (all turns together).
        neighbours: reward differences of neighbouring ranks of all rows, n - 1 of a row with n candidates; >= 0.
        origins: a row per kind of candidate (index: "chosen", "rejected", "augmented" or, where the data tells,
            "augmented, <origin>"): `candidates`, the `rows` that have one, and how many of these it is the `best` of.
        most_contradicted: the rows with the most negative differences, the first one the worst, with their texts:
            id, subset, prompt (turns), chosen, rejected, chosen_reward, rejected_reward, difference.
    """

    table: pd.DataFrame
    neighbours: np.ndarray
    origins: pd.DataFrame
    most_contradicted: list[dict[str, Any]]


def read_pairs(batches: Iterable[pa.RecordBatch]) -> Pairs:
    """Reduce rescored rows to numbers, a batch at a time.

    Args:
        batches: of RESCORED_SCHEMA. A further column `origins`, parallel to `sources`, says where augmented
            candidates are from.

    Raises:
        UserError: no rows, a row without a chosen or a rejected response, rewards that are not finite or not ranked,
            a subset called "total".
    """
    tables, subsets, neighbours, origins = [], [], [], []
    worst: list[dict[str, Any]] = []
    for batch in batches:
        if not len(batch):
            continue
        candidates = _Candidates(batch)
        table = pd.DataFrame(
            {
                "difference": candidates.rewards[candidates.chosen] - candidates.rewards[candidates.rejected],
                "chosen_chars": candidates.chars[candidates.chosen],
                "rejected_chars": candidates.chars[candidates.rejected],
                "prompt_chars": _prompt_chars(batch["prompt"]),
            }
        )
        tables.append(table)
        subsets.append(batch["subset"].dictionary_encode())
        neighbours.append(candidates.neighbours())
        origins.append(candidates.origins())
        worst = _most_contradicted(worst, batch, table["difference"])
    if not tables:
        raise UserError("There are no rescored rows: the train split is empty.")
    subset = pa.chunked_array(subsets).unify_dictionaries().to_pandas()
    if TOTAL in subset.cat.categories:
        raise UserError(f"A subset is called {TOTAL!r}, which is the name for all of them: rename its folder.")
    return Pairs(
        pd.concat(tables, ignore_index=True).assign(subset=subset),
        np.concatenate(neighbours),
        _added(origins),
        worst,
    )


class _Candidates:
    """The candidates of a batch, one after the other; `row` says whose they are."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self.row = pc.list_parent_indices(batch["sources"]).to_numpy()
        self.sources = batch["sources"].flatten()
        self.rewards = batch["rewards"].flatten().to_numpy(zero_copy_only=False)
        self.chars = pc.utf8_length(batch["responses"].flatten()).to_numpy(zero_copy_only=False)
        self.chosen, self.rejected = self._places("chosen"), self._places("rejected")
        self._check_rewards()

    def _places(self, source: str) -> np.ndarray:
        """Where each row's candidate from this source is."""
        [places] = np.nonzero(pc.equal(self.sources, source).to_numpy(zero_copy_only=False))
        counts = np.bincount(self.row[places], minlength=len(self._batch))
        if (counts != 1).any():
            bad = self._batch.slice(int(np.argmax(counts != 1)), 1).to_pylist()[0]
            raise UserError(
                f"Row {bad['id']} has the candidates {bad['sources']}: it needs one chosen and one rejected response."
            )
        return places

    def _check_rewards(self) -> None:
        bad = ~np.isfinite(self.rewards)
        if bad.any():
            raise UserError(
                f"Rewards are not finite, first those of row {self._id_of(bad)!r}: the reward model overflowed; "
                "set reward_model.dtype to float32."
            )
        unranked = np.zeros_like(bad)
        unranked[1:] = (np.diff(self.rewards) > 0) & (np.diff(self.row) == 0)
        if unranked.any():
            raise UserError(
                f"Candidates are not ranked by reward, first those of row {self._id_of(unranked)!r}: "
                "run the rescore stage again."
            )

    def _id_of(self, candidates: np.ndarray) -> str:
        """The id of the row of the first candidate that is meant."""
        return self._batch["id"][int(self.row[np.argmax(candidates)])].as_py()

    def neighbours(self) -> np.ndarray:
        """Reward differences of neighbouring ranks."""
        return -np.diff(self.rewards)[np.diff(self.row) == 0]

    def origins(self) -> pd.DataFrame:
        """`Pairs.origins` of this batch."""
        names = self.sources.to_pandas()
        if "origins" in self._batch.schema.names:
            known = self._batch["origins"].flatten().to_pandas()
            told = (names == "augmented") & known.notna()
            names = names.mask(told, "augmented, " + known)
        best = np.append(True, np.diff(self.row) != 0)
        grouped = pd.DataFrame({"name": names, "row": self.row, "best": best}).groupby("name")
        return grouped.agg(candidates=("row", "size"), rows=("row", "nunique"), best=("best", "sum"))


def _prompt_chars(prompts: pa.ListArray) -> np.ndarray:
    chars = pc.utf8_length(pc.struct_field(prompts.flatten(), "content")).to_numpy(zero_copy_only=False)
    summed = np.bincount(pc.list_parent_indices(prompts).to_numpy(), weights=chars, minlength=len(prompts))
    return summed.astype(np.int32)


def _most_contradicted(
    so_far: Sequence[dict[str, Any]], batch: pa.RecordBatch, difference: pd.Series
) -> list[dict[str, Any]]:
    """The worst of what was found before and of this batch; of equal ones the first."""
    found = list(so_far)
    for place in difference[difference < 0].nsmallest(MOST_CONTRADICTED, keep="first").index:
        row = batch.slice(place, 1).to_pylist()[0]
        shown: dict[str, Any] = {key: row[key] for key in ("id", "subset", "prompt")}
        for side in ("chosen", "rejected"):
            rank = row["sources"].index(side)
            shown |= {side: row["responses"][rank], f"{side}_reward": row["rewards"][rank]}
        found.append(shown | {"difference": float(difference[place])})
    return sorted(found, key=lambda shown: shown["difference"])[:MOST_CONTRADICTED]


def _added(origins: list[pd.DataFrame]) -> pd.DataFrame:
    """Counts of all batches; the labelled sides first, then augmented candidates by name."""
    added = pd.concat(origins).groupby(level=0).sum()
    labelled = ["chosen", "rejected"]
    return added.loc[[*labelled, *(name for name in added.index if name not in labelled)]]
