"""Self-contained HTML pages from the templates beside the code that fills them."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(template: str, out: Path, **values: Any) -> Path:
    """Fill a template, named relative to this package, and write it to `out`; every value is HTML-escaped."""
    out.parent.mkdir(parents=True, exist_ok=True)
    text = _ENVIRONMENT.get_template(template).render(**values)
    out.write_text(text.rstrip() + "\n", encoding="utf-8", newline="\n")
    return out
