"""The command line: `python -m bct_onnx IN OUT`, also as `bct-onnx`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
import onnxruntime
from rich.console import Console

from . import files, table
from .api import compress
from .commands import EPILOG, PROGRAM, commands
from .errors import BctError
from .package import Package, compress_folder, is_folder, make_plan, plan_of_file
from .package.table import show_package, show_plan
from .page import check_libraries, write_page
from .parameters import OF_A_FOLDER, with_parameters
from .progress import DEBUG, set_log_level, shown
from .report import Report
from .search import plot
from .sessions import limit_memory, load_costs
from .version import __version__

INTERRUPTED, TERMINATED = 130, 143
# What ONNX Runtime says goes into the one line, not beside it.
FATAL = 4
Made = TypeVar("Made", Report, Package)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EPILOG)
@with_parameters
@click.version_option(__version__, prog_name=PROGRAM)
def command(
    json_path: Path | None,
    plot_path: Path | None,
    page_path: Path | None,
    quiet: bool,
    log_level: str,
    no_verify: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Compress a transformer in ONNX: smaller, faster, the same answers.

    IN is an ONNX file; or a folder of them beside their config.json, or a checkpoint of transformers, which is exported
    first: then OUT is a folder that is ready to deploy. OUT is compared with IN in ONNX Runtime before it appears. Exit
    code 0: done. 1: the result did not pass verification and was not written. 2: a bad request or a bad input; one line
    says what to do.
    """
    set_log_level(log_level)
    source, target = options["source"], options["target"]
    for path in filter(None, (json_path, plot_path, page_path)):
        files.check_text(path, source, target)
    if page_path is not None:
        check_libraries()
    folder = {name: options.pop(name) for name in OF_A_FOLDER}
    whole = is_folder(source)
    _check_kind(whole, folder, plot_path)
    if dry_run:
        _show_plan(whole, folder, {**options, "verify": not no_verify})
        return
    if whole:
        package = _run(compress_folder, quiet, verify=not no_verify, **folder, **options)
        _write(package.with_reports(), json_path, page_path)
        if not quiet:
            show_package(package)
        return
    report = _run(compress, quiet, verify=not no_verify, **options)
    if page_path is not None:
        report = _with_memory(report)
    _write(report.to_dict(), json_path, page_path)
    if plot_path is not None and report.search is not None:
        plot(report.search, plot_path)
    if not quiet:
        table.show(report)


def main() -> None:
    """Run the command and end the process with its exit code."""
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, _terminate)
    limit_memory()
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        commands.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(2) from None
    except BctError as error:
        _print_error(console, str(error))
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, click.Abort):
        _print_error(console, "interrupted; nothing was written")
        raise SystemExit(INTERRUPTED) from None
    except MemoryError as error:
        _print_error(console, f"more memory is needed than there is: {error}")
        raise SystemExit(2) from None
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _print_error(
            console,
            f"a defect of bct_onnx: {type(error).__name__}: {error} (set {DEBUG}=1 for the traceback)",
        )
        raise SystemExit(2) from None


def _run(compress: Callable[..., Made], quiet: bool, **options: Any) -> Made:
    """Compress a file or a folder, and show how far it is."""
    with shown(quiet) as progress:
        return compress(progress=progress, **options)


def _with_memory(report: Report) -> Report:
    """Return a report with the memory that both models take, unless they were too large to load as any user does."""
    if report.verification is None or report.verification.latency is None:
        return report
    with suppress(BctError):
        return replace(report, memory=load_costs(report.input.path, report.output.path))
    return report


def _check_kind(whole: bool, folder: dict[str, Any], plot_path: Path | None) -> None:
    """Refuse options of a folder with a file, and the other way round."""
    if whole and plot_path is not None:
        raise BctError("--plot draws the curve of one model; compress the models one by one for it")
    given = [name for name, default in OF_A_FOLDER.items() if folder[name] != default]
    if not whole and given:
        raise BctError(f"--{given[0].replace('_', '-')} is for folders, the input is a file; leave it out")


def _show_plan(whole: bool, folder: dict[str, Any], options: dict[str, Any]) -> None:
    source, target, preset = options["source"], options["target"], options["preset"]
    if whole:
        asked = {name: value for name, value in folder.items() if name != "examples"}
        plan = make_plan(source, target, preset=preset, **asked)
    else:
        plan = plan_of_file(source, target, preset)
    show_plan(plan, **options)


def _write(data: dict[str, Any], json_path: Path | None, page_path: Path | None) -> None:
    """Write a report as data and as a page, where they are asked for."""
    if json_path is not None:
        files.write_json(json_path, data)
    if page_path is not None:
        write_page(data, page_path)


def _terminate(*_: object) -> None:
    """End the process in the same way as an interrupt does: what was begun is removed."""
    raise SystemExit(TERMINATED)


def _print_error(console: Console, message: str) -> None:
    console.print(f"error: {' '.join(message.split())}", style="red", highlight=False, markup=False, soft_wrap=True)
