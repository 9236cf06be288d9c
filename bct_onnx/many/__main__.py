"""Command line: compress many models, and resume where that stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bct_onnx import files
from bct_onnx.errors import BctError
from bct_onnx.table import format_bytes

from .jobs import Job, jobs
from .run import DONE, FAILED, SKIPPED, Result, executor, run_all

_SHOWN = 100


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("source", metavar="LIST", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", metavar="OUTDIR", type=click.Path(file_okay=False, path_type=Path))
@click.argument("options", nargs=-1)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Models at the same time.")
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler whose workers see the same files.")
@click.option("--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write the results there.")
def main(
    source: Path, folder: Path, options: Sequence[str], workers: int, scheduler: str | None, json_path: Path | None
) -> None:
    """Compress every model of LIST, a folder or a file of paths, into OUTDIR; OPTIONS behind `--` go to each.

    LIST may be a fleet file (.toml): options of all under [options], and for each of the [[models]] its path, the name
    of its output (out) and options of its own. Checkpoints and folders become folders.

    A model that fails does not stop the others. Run again, only what is missing or has changed is done. Exit code 0:
    all are there. 1: some failed.
    """
    console = Console(stderr=True)
    try:
        work = jobs(source, folder, options)
        results = _run_with_progress(work, workers, scheduler, console)
        if json_path is not None:
            files.write_json(json_path, [_plain(result) for result in results])
    except BctError as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    _show(results)
    raise SystemExit(any(result.state == FAILED for result in results))


def _run_with_progress(work: Sequence[Job], workers: int, scheduler: str | None, console: Console) -> list[Result]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results = {}
    with executor(workers, scheduler) as pool, Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("models", total=len(work))
        for result in run_all(work, pool):
            results[result.target] = result
            bar.update(task, advance=1, description=result.source.name)
    return [results[job.target] for job in work]


def _plain(result: Result) -> dict[str, Any]:
    return {**asdict(result), "source": str(result.source), "target": str(result.target), "ratio": result.ratio}


def _show(results: Sequence[Result]) -> None:
    table = Table(title=f"{len(results)} models", title_justify="left")
    for column in ("model", "state"):
        table.add_column(column, overflow="fold")
    for column in ("before", "after", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("why", overflow="fold")
    for result in results:
        sizes = [format_bytes(count) if count else "" for count in (result.bytes_before, result.bytes_after)]
        ratio = f"{result.ratio:.2f}" if result.ratio else ""
        table.add_row(result.source.name, result.state, *sizes, ratio, result.message[:_SHOWN])
    console = Console()
    console.print(table)
    states = [result.state for result in results]
    console.print(", ".join(f"{states.count(state)} {state}" for state in (DONE, SKIPPED, FAILED)))


if __name__ == "__main__":
    main(prog_name="python -m bct_onnx.many")
