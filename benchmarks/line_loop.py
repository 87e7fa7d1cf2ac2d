"""The reference's way of reading HH, in plain words: one loop over the lines, everything in one list.

Written anew; what is kept is how the work is laid out. Every line is parsed as JSON, both dialogues are cut at blank
lines before a speaker's name, and the row goes to a list that is written as JSON lines at the end. There is no check
of any kind: no rows are set aside, nothing is carved out, nothing is validated.
"""

import gzip
import json
import re
from pathlib import Path

_SPEAKER = re.compile(r"\n\n(?=Human:|Assistant:)")


def line_loop(source: Path, out: Path) -> int:
    """Read <source>/<subset>/*.jsonl.gz, write one file of JSON lines to the folder `out`; returns the rows."""
    rows = []
    for file in sorted(source.glob("*/*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                raw = json.loads(line)
                sides = [_SPEAKER.split(raw[side])[1:] for side in ("chosen", "rejected")]
                prompt, responses = sides[0][:-1], [turns[-1] for turns in sides]
                rows.append({"prompt": prompt, "responses": responses, "sources": ["chosen", "rejected"]})
    out.mkdir(parents=True, exist_ok=True)
    with (out / "rows.jsonl").open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(rows)
