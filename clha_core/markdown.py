"""Texts of anybody in Markdown that MLflow, Prefect and the hub show.

By hand, because the libraries that read Markdown do not write it.
"""

import re
from html import escape

# What makes a link or an image ("](", "][", "]:"), code, emphasis or a cell. Underscores inside of words make nothing.
_SPECIAL = re.compile(r"[\\`*|~]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])")
_BRACKET = re.compile(r"\\?([\[\]])")


def as_text(text: str) -> str:
    """A text on one line, that is shown as it is: also in a cell of a table, or as the words of a link."""
    return escape(_SPECIAL.sub(r"\\\g<0>", " ".join(text.split())), quote=False)


def link(words: str, url: str) -> str:
    """A link where the address is one of the web or of this page, else the words alone."""
    if not re.fullmatch(r"(?:https?://|#)[^\s<>()\\]+", url):
        return as_text(words)
    shown = _BRACKET.sub(r"\\\1", as_text(words))
    return f"[{shown}]({url})"
