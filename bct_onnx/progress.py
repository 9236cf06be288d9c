"""How far work is: a bar with the time left where somebody watches, and lines of a log where they are asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from passes import Progress as Report

LEVELS = ("warning", "info", "debug")
# Set to see the traceback of a defect.
DEBUG = "BCT_DEBUG"
_log = logging.getLogger("bct_onnx")


def set_log_level(level: str) -> None:
    """Log on stderr from a level on: info has a line for each stage, debug one for each step, and tracebacks."""
    _log.setLevel(level.upper())
    if level == "debug":
        os.environ[DEBUG] = "1"
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    _log.handlers = [handler]
    _log.propagate = False  # libraries give the root logger handlers of their own


@contextmanager
def shown(quiet: bool) -> Iterator[Report]:
    """Give what is to be told of stages and steps; it logs them, and shows a bar unless `quiet`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console, stage = Console(stderr=True), ""
    # Where nobody watches, a bar would leave an empty line.
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)

        def report(what: str, done: int, total: int) -> None:
            nonlocal stage
            _log.log(logging.DEBUG if what == stage else logging.INFO, f"{what} {done}/{total}" if total else what)
            stage = what
            bar.update(task, description=what, completed=done, total=total or None)

        yield report
