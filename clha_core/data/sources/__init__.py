"""Raw preference rows from the embedded sample, a local folder or the Hugging Face hub."""

from clha_core.data.sources.local import local_splits
from clha_core.data.sources.sample import sample_splits
from clha_core.data.sources.source import RawRow, SourceSplit, Unreadable, check_subset_name
from clha_core.params import Params

__all__ = ["RawRow", "SourceSplit", "Unreadable", "source_splits"]


def source_splits(params: Params) -> list[SourceSplit]:
    """The splits of the source that `params.data` names, in a fixed order.

    Raises:
        UserError: the data is not there, cannot be read, or a subset name is not plain.
    """
    for name in params.data.subsets:
        check_subset_name(name)
    match params.data.source:
        case "sample":
            return sample_splits(params)
        case "local":
            return local_splits(params.data)
        case "hub":
            from clha_core.data.sources.hub import hub_splits  # imports datasets, which takes seconds

            return hub_splits(params.data)
