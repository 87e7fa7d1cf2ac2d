"""Prefect's UI without its usage reports.

The V2 UI loads a configuration from Amplitude in every browser, whatever the server's analytics setting says. It does
not if it has no key, so the key is taken out of the copy that the server serves. (The V1 UI asks nobody, but its
select fields do not open by mouse in Prefect 3.8.)
"""

import re
from pathlib import Path

KEY = re.compile(r"return`[0-9a-f]{32}`")


def remove_telemetry_key(static_directory: Path) -> None:
    """Edit the scripts in PREFECT_UI_STATIC_DIRECTORY, which the server fills when it starts."""
    for script in (static_directory / "v2").rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        if KEY.search(text):
            script.write_text(KEY.sub("return``", text), encoding="utf-8")
