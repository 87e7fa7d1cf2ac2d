"""Self-contained HTML pages from the templates beside the code that fills them."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_PACKAGE = Path(__file__).resolve().parents[1]
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_PACKAGE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(template: str, out: Path, *, script: str = "", **values: Any) -> Path:
    """Fill a template, named relative to this package, and write it to `out`; every value is HTML-escaped.

    Args:
        script: a file of JavaScript, named likewise; it is the only one that browsers run in the page.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    code = (_PACKAGE / script).read_text(encoding="utf-8") if script else ""
    page = _ENVIRONMENT.get_template(template)
    text = page.render(policy=content_policy(code), script=Markup(code), **values)
    out.write_text(text.rstrip() + "\n", encoding="utf-8", newline="\n")
    return out


def content_policy(script: str = "") -> str:
    """A Content-Security-Policy under which a page runs one script at most, and loads nothing from anywhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"'sha256-{digest}'" if script else "'none'"
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {scripts}; base-uri 'none'; form-action 'none'"
