"""Great Expectations' Data Docs as one page that needs no network.

The sections are rendered by Great Expectations; its own site around them loads scripts and fonts from CDNs and
carries the time and random ids of the run, so the page around them is ours.
"""

import copy
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView

from clha_core.reporting.page import content_policy
from clha_core.validation.frames import Frames


@dataclass(frozen=True)
class Check:
    """One expectation as a line of the summary.

    Attributes:
        suite: name of its suite.
        rule: what must hold, a sentence.
        success: whether it does.
        evidence: which rows break it; empty if none.
    """

    suite: str
    rule: str
    success: bool
    evidence: str


def write_data_docs(
    folder: Path, checks: list[Check], results: list[ExpectationSuiteValidationResult], frames: Frames | None
) -> Path:
    """Write index.html into `folder` and return its path; the same results give the same bytes.

    Args:
        frames: figures to show; None where the tables could not be looked into.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clha_core.validation", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("data_docs.html.j2").render(
        policy=content_policy(),
        checks=checks,
        failed=sum(not check.success for check in checks),
        splits=frames.splits.to_dict("records") if frames else [],
        dataset=frames.dataset.to_dict("records")[0] if frames else None,
        reasons=sorted(frames.reasons.items()) if frames else [],
        suites=_render_suites(results),
    )
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.html"
    index.write_text(page, encoding="utf-8")
    return index


def _render_suites(results: list[ExpectationSuiteValidationResult]) -> list[tuple[str, list[str]]]:
    """For each suite its name and its sections as HTML."""
    renderer, template = (
        ValidationResultsPageRenderer(),
        DefaultJinjaPageView().env.get_template("section.j2"),
    )
    suites, number = [], 0
    for result in results:
        sections = []
        # The first section is the overview: links into the site and the time of the run.
        for section in renderer.render(_escaped(result)).to_json_dict()["sections"][1:]:
            number += 1
            loop = {"index": number}  # the template is written for the body of a loop; ids count on it
            sections.append(template.render(section=section, loop=loop, section_loop=loop))
        suites.append((result.suite_name, sections))
    return suites


def _escaped(result: ExpectationSuiteValidationResult) -> ExpectationSuiteValidationResult:
    """The result with values from the data escaped, which Great Expectations' tables put into the page as they are."""
    escaped = copy.deepcopy(result)
    for expectation in escaped.results:
        expectation.result = _escape(expectation.result)
    return escaped


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escape(item) for item in value]
    return value
