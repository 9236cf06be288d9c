"""The page as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bct_onnx import files
from bct_onnx.extras import extra
from bct_onnx.table import format_bytes

from .contents import page_of

_LIBRARIES = ("jinja2", "matplotlib")
_TEMPLATES = Path(__file__).with_name("templates")
# Characters of a name in a table that shows a few; the middle of longer ones is left out.
_LONGEST_NAME = 90


def check_libraries() -> None:
    """Raise BctError, with what to install, where a library that pages are made with is missing."""
    for name in _LIBRARIES:
        extra(name, "report", "which makes pages of reports")


def write_page(data: Mapping[str, Any], path: Path) -> None:
    """Write the page of a report or a package, as `page_of` takes them, whole or not at all; raises BctError."""
    files.write_text(path, render(data))


def render(data: Mapping[str, Any]) -> str:
    """Return the page of a report or a package as HTML; raises BctError for data of another form."""
    check_libraries()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": format_bytes, "short": _short}
    return environment.get_template("page.html").render(page=page_of(data))


def _short(name: str) -> str:
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]} … {name[-half:]}"
