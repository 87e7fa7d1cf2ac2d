"""Prefect's UI without its usage reports.

The V2 UI loads a configuration from Amplitude in every browser, whatever the server's analytics setting says. It does
not if it has no key, so the key is taken out of what the server serves. (The V1 UI asks nobody, but its
select fields do not open by mouse in Prefect 3.8.)
"""

import re
from pathlib import Path

KEY = re.compile(r"return`[0-9a-f]{32}`")


def remove_telemetry_key(bundle: Path) -> None:
    """Edit the scripts of the V2 UI in the folder `bundle`."""
    for script in bundle.rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        if KEY.search(text):
            script.write_text(KEY.sub("return``", text), encoding="utf-8")


if __name__ == "__main__":  # in the image: the installed package, which the server copies from
    import prefect

    remove_telemetry_key(prefect.__ui_v2_static_path__)
