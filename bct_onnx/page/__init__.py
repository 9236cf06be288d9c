"""A report to look at: one self-contained HTML file, made from what `--json` or a package's manifest says."""

from .contents import read_data
from .render import check_libraries, render, write_page

__all__ = ["check_libraries", "read_data", "render", "write_page"]
