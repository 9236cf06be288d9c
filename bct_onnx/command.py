"""The command that compresses: `bct-onnx IN OUT`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from . import files, table
from .api import compress
from .errors import BctError
from .package import Package, compress_folder, is_folder, make_plan, plan_of_file
from .package.table import show_package, show_plan
from .page import check_libraries, write_page
from .parameters import OF_A_FOLDER, with_parameters
from .progress import set_log_level, shown
from .report import Report
from .search import plot
from .sessions import load_costs
from .version import __version__

Made = TypeVar("Made", Report, Package)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@with_parameters
@click.version_option(__version__, prog_name="bct-onnx")
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
