"""Runs the expectations over ingested data, writes Data Docs and says in plain sentences what failed."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.data_context import EphemeralDataContext
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

from clha_core.params import Params
from clha_core.validation.data_docs import Check, write_data_docs
from clha_core.validation.frames import Frames, load_frames, schema_frame
from clha_core.validation.suite import RULE, dataset_suite, rows_suite, schema_suite, splits_suite

_EXAMPLES = 5
_LONGEST_EXAMPLE = 80


@dataclass(frozen=True)
class ValidationReport:
    """What the expectations found.

    Attributes:
        failures: one sentence for each failed expectation; empty if the data is good.
        metrics: plain numbers: success, counts, key figures of the data by split.
        docs: the page that shows all of it.
    """

    failures: list[str]
    metrics: dict[str, Any]
    docs: Path


def validate(params: Params, ingested: Path, docs: Path) -> ValidationReport:
    """Check the tables in `ingested` and write Data Docs to the folder `docs`, replacing what is there.

    Raises:
        UserError: a file of `ingested` is missing or unreadable.
    """
    context = gx.get_context(mode="ephemeral", project_config=_in_memory())
    limits = params.validate_
    results = [_run(context, schema_frame(ingested), schema_suite(), "split")]
    frames: Frames | None = None
    if results[0].success:  # else there are no columns to look into
        frames = load_frames(ingested)
        results += [
            _run(context, frames.rows, rows_suite(limits, params.data.subsets), "id"),
            _run(context, frames.splits, splits_suite(limits), "split"),
            _run(context, frames.dataset, dataset_suite(limits), "rows"),
        ]
    checks = [
        Check(result.suite_name, _rule(expectation), bool(expectation.success), _evidence(expectation))
        for result in results
        for expectation in result.results
    ]
    failures = [f"{check.rule} {check.evidence}" for check in checks if not check.success]
    metrics: dict[str, Any] = {
        "success": not failures,
        "expectations": len(checks),
        "failed": len(failures),
        **(_key_figures(frames) if frames else {}),
    }
    if docs.exists():
        shutil.rmtree(docs)
    return ValidationReport(failures, metrics, write_data_docs(docs, checks, results, frames))


def _in_memory() -> DataContextConfig:
    """Without the defaults, which leave a temporary folder behind."""
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
    )


def _run(
    context: EphemeralDataContext, frame: pd.DataFrame, suite: gx.ExpectationSuite, index_column: str
) -> ExpectationSuiteValidationResult:
    batch = (
        context.data_sources.add_pandas(suite.name)
        .add_dataframe_asset(suite.name)
        .add_batch_definition_whole_dataframe(suite.name)
        .get_batch({"dataframe": frame})
    )
    result = batch.validate(
        suite,
        result_format={
            "result_format": "SUMMARY",
            "unexpected_index_column_names": [index_column],
            "partial_unexpected_count": _EXAMPLES,
        },
    )
    for expectation in result.results:
        if expectation.exception_info.get("raised_exception", bool(expectation.exception_info)):
            raise RuntimeError(f"an expectation could not be computed: {expectation.exception_info}")
    return result


def _rule(expectation: ExpectationValidationResult) -> str:
    return expectation.expectation_config.meta[RULE]


def _evidence(expectation: ExpectationValidationResult) -> str:
    """Which rows break the rule, or what was seen instead; empty for a rule that holds without exception."""
    found = expectation.result
    if not found.get("unexpected_count"):
        return "" if expectation.success else f"Found: {found['observed_value']}."
    examples = [
        ", ".join(f"{name} {str(value)[:_LONGEST_EXAMPLE]}" for name, value in sorted(example.items()))
        for example in found["partial_unexpected_index_list"][:_EXAMPLES]
    ]
    more = ", …" if found["unexpected_count"] > len(examples) else ""
    return f"Broken by {found['unexpected_count']} of {found['element_count']}: {'; '.join(examples)}{more}."


def _key_figures(frames: Frames) -> dict[str, Any]:
    figures = frames.splits.set_index("split").round(6).to_dict("index")
    return {
        **{str(name): value for name, value in frames.dataset.round(6).to_dict("records")[0].items()},
        "reasons": dict(frames.reasons),
        "splits": {str(split): row for split, row in figures.items()},
    }
