"""The blinded set as a CSV file to fill in with any spreadsheet program."""

import csv
from pathlib import Path

from clha_core.assessment.blind import BlindSet
from clha_core.judging.criteria import CRITERIA

COLUMNS = ("export", "item", "question", "prompt", "A", "B", "vote", "comment")
# A cell that begins so is a formula to spreadsheet programs, and model outputs are anybody's text.
# The last four are the wide forms of the first four.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_sheet(blinded: BlindSet, path: Path) -> None:
    """Write the set with empty columns vote and comment.

    The byte order mark makes Excel read UTF-8. A text that a spreadsheet would run as a formula gets an apostrophe in
    front.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for item in blinded.items:
            texts = (CRITERIA[item.criterion].question, item.prompt, item.a, item.b)
            writer.writerow([blinded.export, item.item, *map(_harmless, texts), "", ""])


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
