"""Stage validate: stops the pipeline if the ingested data breaks an expectation."""

from pathlib import Path

from clha_core import paths
from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.stages.context import write_metrics
from clha_core.validation.validate import validate


def run(params: Params, root: Path = Path()) -> None:
    """Write reports/data_docs and metrics/validate.json below `root`.

    Raises:
        UserError: an expectation failed (after both are written), or the ingested data is missing or unreadable.
    """
    report = validate(params, root / paths.INGESTED, root / paths.DATA_DOCS)
    write_metrics(report.metrics, root / paths.VALIDATE_METRICS)
    if report.failures:
        failures = "\n".join(f"  - {sentence}" for sentence in report.failures)
        raise UserError(
            f"The data breaks {len(report.failures)} of {report.metrics['expectations']} expectations:\n{failures}\n"
            f"See {report.docs}. Mend or remove those rows at the source, or, if they are as they should be, change "
            "the limit in the validate section of params.yaml."
        )
