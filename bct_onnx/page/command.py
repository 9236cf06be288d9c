"""The command line of pages: `bct-onnx report REPORT OUT.html`."""

from __future__ import annotations

from pathlib import Path

import click

from bct_onnx import files

from .contents import read_data
from .render import check_libraries, write_page


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("source", metavar="REPORT", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.html", type=click.Path(path_type=Path))
def report(source: Path, target: Path) -> None:
    """Make a page to look at: one HTML file, without network, of REPORT, which --json wrote, or of a package's folder.

    A folder's manifest has no weights one by one; a page made with --report, or of what --json wrote, has. Exit code
    0: written. 2: REPORT is neither, or OUT.html cannot be written.
    """
    files.check_text(target, source)
    check_libraries()
    write_page(read_data(source), target)
