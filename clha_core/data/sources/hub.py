"""Rows of a Hugging Face dataset with chosen and rejected: from the hub, or from a local dataset folder."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import httpx

from clha_core.data.sources.source import (
    SOURCE_SPLITS,
    RawRow,
    SourceSplit,
    check_subset_name,
    limited,
    require_inside,
)
from clha_core.errors import UserError
from clha_core.params import DataParams

# The subsets of this dataset are folders, not configurations, and its other folder (red-team-attempts) has no pairs.
_FOLDERS_OF = {
    "Anthropic/hh-rlhf": (
        "harmless-base",
        "helpful-base",
        "helpful-online",
        "helpful-rejection-sampled",
    )
}
_ROWS_PER_BATCH = 1_000


def hub_splits(data: DataParams) -> list[SourceSplit]:
    """Download (or take from the cache) the subsets of `data.dataset` and list their splits.

    A subset is a configuration of the dataset, or else one of its folders.

    Raises:
        UserError: no network, no such dataset, revision or subset, or no train split; a link out of a local folder.
    """
    for file in Path(data.dataset).rglob("*"):
        require_inside(file, Path(data.dataset))
    try:
        subsets = _subsets(data)
        splits = []
        for subset, where in subsets.items():
            loaded = datasets.load_dataset(data.dataset, revision=data.revision, **where)
            if "train" not in loaded:
                raise UserError(
                    f"{data.dataset}, subset {subset}, has no split named train, only {', '.join(loaded)}: name "
                    "another subset in data.subsets, or save the splits you want as train.jsonl and test.jsonl and "
                    "use data.source local."
                )
            for split in SOURCE_SPLITS:
                if split in loaded:
                    limit = data.max_train_rows if split == "train" else data.max_test_rows
                    splits.append(_source_split(subset, split, loaded[split], limit))
        return splits
    # RuntimeError: the data set is a script.
    except (OSError, RuntimeError, httpx.HTTPError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(
            f"The dataset {data.dataset!r} (revision {data.revision or 'main'}, subsets "
            f"{', '.join(data.subsets) or 'all'}) could not be loaded: {reason}. Check the name, the revision, "
            "data.subsets and the network (a gated dataset needs `hf auth login`); without network set data.source "
            "to local or sample."
        ) from error


def _subsets(data: DataParams) -> dict[str, dict[str, Any]]:
    """The name of each subset, and the arguments of load_dataset that choose it."""
    configurations = datasets.get_dataset_config_names(data.dataset, revision=data.revision)
    if data.subsets:
        return {name: {"name": name} if name in configurations else {"data_dir": name} for name in sorted(data.subsets)}
    if data.dataset in _FOLDERS_OF:
        return {name: {"data_dir": name} for name in _FOLDERS_OF[data.dataset]}
    if configurations == ["default"]:
        return {check_subset_name(PurePosixPath(data.dataset).name): {}}
    return {check_subset_name(name): {"name": name} for name in sorted(configurations)}


def _source_split(subset: str, split: Any, dataset: datasets.Dataset, limit: int) -> SourceSplit:
    rows = limited(len(dataset), limit)

    def read() -> Iterator[RawRow]:
        index = 0
        # Arrow batches: taking rows out of a Dataset one at a time is several times slower.
        for batch in dataset.select(range(rows)).with_format("arrow").iter(_ROWS_PER_BATCH):
            for row in batch.to_pylist():
                yield RawRow(subset, split, index, row)
                index += 1

    return SourceSplit(subset, split, rows, read)
