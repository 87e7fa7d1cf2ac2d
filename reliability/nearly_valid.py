"""Inputs that are well-formed and still wrong: the right keys with the wrong values, made by hypothesis."""

import json
from typing import Any

import yaml
from hypothesis import strategies as st

from clha_core.judging.labels import LABELS
from reliability.readers import HH_ROWS, PAGE, PARAMS_FILE, TASKS

# Surrogates too: JSON can name half of an emoji, which no file can hold.
_TEXTS = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["", " ", "\n\nHuman: x", "\n\nAssistant:", "001", "skip", "A better"]
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS
JUNK = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=6
)
_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | JUNK, "content": _TEXTS | JUNK}
)
_DIALOGUE = st.lists(st.tuples(st.sampled_from(["\n\nHuman:", "\n\nAssistant:"]), _TEXTS), max_size=4).map(
    lambda turns: "".join(f"{marker} {text}" for marker, text in turns)
)
_CONTENT = _DIALOGUE | st.lists(_MESSAGE | JUNK, max_size=4) | JUNK
_ROW = st.fixed_dictionaries(
    {"chosen": _CONTENT, "rejected": _CONTENT},
    optional={"prompt": _CONTENT, "augmented": st.lists(_CONTENT, max_size=2) | JUNK},
)
_ANSWER = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["mine/train/000000", "nowhere"]) | JUNK,
        "prompt": st.just("Question 1?") | _CONTENT,
        "response": JUNK,
        "responses": st.lists(JUNK, max_size=3) | JUNK,
    },
)


def _file(rows: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return st.lists(rows | JUNK, max_size=6).map(
        lambda found: "".join(json.dumps(row) + "\n" for row in found).encode()
    )


@st.composite
def _altered(draw: st.DrawFn, valid: Any) -> Any:
    """A valid document with one place, at any depth, replaced by junk or removed."""
    if isinstance(valid, dict) and valid and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(valid)))
        rest = {name: value for name, value in valid.items() if name != key}
        return rest if draw(st.integers(0, 4)) == 0 else {**rest, key: draw(_altered(valid[key]))}
    if isinstance(valid, list) and valid and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(valid) - 1))
        return [*valid[:place], draw(_altered(valid[place])), *valid[place + 1 :]]
    return draw(JUNK)


def _documents(valid: bytes) -> st.SearchStrategy[bytes]:
    return _altered(json.loads(valid)).map(lambda document: json.dumps(document).encode())


_YAML = _altered(yaml.safe_load(PARAMS_FILE)).map(
    lambda document: yaml.safe_dump(document, allow_unicode=False).encode("utf-8", errors="backslashreplace")
)
_REPLY = st.fixed_dictionaries({"label": st.sampled_from(LABELS) | JUNK}, optional={"reason": JUNK}).map(
    lambda found: f"Well: {json.dumps(found)}".encode()
)

# By name of the reader.
NEARLY_VALID = {
    "jsonl": _file(_ROW).map(HH_ROWS.__add__),  # enough good rows that the file is read
    "candidates": _file(_ANSWER),
    "params": _YAML,
    "rewriting params": _YAML,
    "verdicts": _REPLY,
    "votes: page": _documents(PAGE),
    "votes: Label Studio": _documents(TASKS),
}
