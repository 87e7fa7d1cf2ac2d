"""The blinded set as one HTML file: a rater opens it offline, votes with the keyboard and saves a file of votes."""

from dataclasses import asdict
from pathlib import Path

from clha_core.assessment.blind import BlindSet
from clha_core.assessment.votes import SKIP, VOTES_FORMAT
from clha_core.judging.criteria import CRITERIA
from clha_core.judging.labels import LABELS
from clha_core.reporting.page import write_page


def write_assessment_page(blinded: BlindSet, path: Path) -> None:
    """Write the page; texts are data in it, never markup."""
    write_page(
        "assessment/page.html.j2",
        path,
        script="assessment/page.js",
        title="Which answer is better?",
        export=blinded.export,
        votes_format=VOTES_FORMAT,
        items=[asdict(item) for item in blinded.items],
        criteria={name: criterion._asdict() for name, criterion in CRITERIA.items()},
        labels=LABELS,
        skip=SKIP,
    )
