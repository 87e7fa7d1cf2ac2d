"""What a stage may say about itself while it runs. Nothing else in clha_core knows who listens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Tracker(Protocol):
    """Receives the record of one training."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Flat parameter names and values, once."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Figures, at a step where they form a curve."""

    def log_dataset(self, name: str, path: Path, digest: str, context: str) -> None:
        """Data that was read: `digest` is its DVC md5, `context` what it was used for."""

    def log_artifact(self, path: Path, folder: str) -> None:
        """A file, or a folder with all it holds."""

    def log_table(self, columns: Mapping[str, Sequence[object]], path: str) -> None:
        """Rows to look through beside the run; a path that is there already is left as it is."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Facts to find the run by."""


class NullTracker:
    """Keeps nothing: for use as a library."""

    def log_params(self, params: Mapping[str, object]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None: ...

    def log_dataset(self, name: str, path: Path, digest: str, context: str) -> None: ...

    def log_artifact(self, path: Path, folder: str) -> None: ...

    def log_table(self, columns: Mapping[str, Sequence[object]], path: str) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...
