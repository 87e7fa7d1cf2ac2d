"""Stage ingest: the source that params.yaml names becomes checked tables."""

from pathlib import Path

from clha_core import paths
from clha_core.data.ingest import ingest
from clha_core.params import Params
from clha_core.stages.context import write_metrics


def run(params: Params, root: Path = Path()) -> None:
    """Write data/ingested and metrics/ingest.json below `root`; a local data.path is relative to it too.

    Raises:
        UserError: the source cannot be read, or a split would be empty.
    """
    if params.data.source == "local":
        data = params.data.model_copy(update={"path": str(root / params.data.path)})
        params = params.model_copy(update={"data": data})
    report = ingest(params, root / paths.INGESTED)
    write_metrics(report.to_metrics(), root / paths.INGEST_METRICS)
