"""Stage ingest: the source that params.yaml names becomes checked tables."""

import json
from pathlib import Path

from clha_core import paths
from clha_core.data.ingest import ingest
from clha_core.params import Params


def run(params: Params, root: Path = Path()) -> None:
    """Write data/ingested and metrics/ingest.json below `root`; a local data.path is relative to it too.

    Raises:
        UserError: the source cannot be read, or a split would be empty.
    """
    if params.data.source == "local":
        data = params.data.model_copy(update={"path": str(root / params.data.path)})
        params = params.model_copy(update={"data": data})
    report = ingest(params, root / paths.INGESTED)
    metrics = root / paths.INGEST_METRICS
    metrics.parent.mkdir(parents=True, exist_ok=True)
    metrics.write_text(json.dumps(report.to_metrics(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
