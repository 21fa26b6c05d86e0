"""Pages and drawings from this folder's templates (jinja2), every text in them escaped."""

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Return a template of this folder filled with values.

    Text is escaped wherever it stands; a template includes a drawing with `| safe`. Raises jinja2.UndefinedError for
    a value that the template misses.

    >>> render("macros.html")
    ''
    """
    return _environment().get_template(template).render(values).strip()


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("asr.reports", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    # Data keeps the order in which it was put together, and its letters.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment


def address(file: str | Path, page: str | Path) -> str:
    """Return the URL of a file relative to the page."""
    return quote(os.path.relpath(file, Path(page).resolve().parent))
