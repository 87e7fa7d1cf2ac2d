"""The blinded set as Label Studio tasks, with the labelling interface that goes with them."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

from clha_core.assessment.blind import BlindSet
from clha_core.judging.criteria import CRITERIA
from clha_core.judging.labels import LABELS

VOTE, COMMENT = "vote", "comment"


def write_tasks(blinded: BlindSet, folder: Path) -> None:
    """Write tasks.json (to import into a project) and interface.xml (its labelling interface) to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        {
            "data": {
                "export": blinded.export,
                "item": item.item,
                "question": CRITERIA[item.criterion].question,
                "criterion": CRITERIA[item.criterion].text,
                "prompt": item.prompt,
                "a": item.a or "(no text)",
                "b": item.b or "(no text)",
            }
        }
        for item in blinded.items
    ]
    (folder / "tasks.json").write_text(json.dumps(tasks, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "interface.xml").write_text(_interface(), encoding="utf-8")


def _interface() -> str:
    """Texts are shown by <Text>, which never reads them as markup."""
    view = ET.Element("View")
    ET.SubElement(view, "Header", value="$question")
    ET.SubElement(view, "Text", name="criterion", value="$criterion")
    ET.SubElement(view, "Header", value="Prompt", size="5")
    ET.SubElement(view, "Text", name="prompt", value="$prompt")
    answers = ET.SubElement(view, "View", style="display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem")
    for side in ("a", "b"):
        answer = ET.SubElement(answers, "View")
        ET.SubElement(answer, "Header", value=side.upper(), size="5")
        ET.SubElement(answer, "Text", name=side, value=f"${side}")
    choices = ET.SubElement(
        view, "Choices", name=VOTE, toName="prompt", choice="single-radio", showInline="true", required="true"
    )
    for place, label in enumerate(LABELS, start=1):
        ET.SubElement(choices, "Choice", value=label, hotkey=str(place))
    ET.SubElement(view, "TextArea", name=COMMENT, toName="prompt", placeholder="Comment (optional)", maxSubmissions="1")
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"
