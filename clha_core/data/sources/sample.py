"""Rows of the embedded generated sample."""

from collections import Counter
from collections.abc import Iterator

from clha_core.data.sources.source import (
    SOURCE_SPLITS,
    RawRow,
    SourceSplit,
    SourceSplitName,
    check_subset_name,
    limited,
)
from clha_core.params import Params


def sample_splits(params: Params) -> list[SourceSplit]:
    """Generated train and test dialogues; a row may name its subset, else that is "sample"."""
    sizes = {"train": params.sample.train_pairs, "test": params.sample.test_pairs}
    return [
        SourceSplit(None, split, sizes[split], lambda split=split: _rows(params, split))  # type: ignore[misc]
        for split in SOURCE_SPLITS
    ]


def _rows(params: Params, split: SourceSplitName) -> Iterator[RawRow]:
    from clha_core.sample.dialogues import generate_rows  # only this source needs the generator

    limit = params.data.max_train_rows if split == "train" else params.data.max_test_rows
    taken: Counter[str] = Counter()
    for index, row in enumerate(generate_rows(params.sample, split)):
        subset = check_subset_name(str(row.get("subset", "sample")))
        wanted = not params.data.subsets or subset in params.data.subsets
        if wanted and taken[subset] < limited(taken[subset] + 1, limit):
            taken[subset] += 1
            yield RawRow(subset, split, index, row)
