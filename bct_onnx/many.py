"""Compress many models: `python -m bct_onnx.many LIST OUTDIR -- OPTIONS`, in processes here or on a Dask cluster."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from . import files
from .cli import command as one
from .errors import BctError
from .table import size
from .version import __version__

DONE, SKIPPED, FAILED = "done", "done before", "failed"
_SHOWN = 100


@dataclass(frozen=True)
class Job:
    """One model to compress: `report` is the JSON file beside the output that says it is done."""

    source: Path
    target: Path
    options: tuple[str, ...]

    @property
    def report(self) -> Path:
        """Return where the report goes."""
        return self.target.with_name(f"{self.target.name}.json")


@dataclass(frozen=True)
class Result:
    """What became of a job: `message` is the error's line, sizes in bytes where there is an output."""

    source: Path
    target: Path
    state: str
    exit_code: int
    message: str = ""
    bytes_before: int | None = None
    bytes_after: int | None = None

    @property
    def ratio(self) -> float | None:
        """How many times smaller the output is."""
        return self.bytes_before / self.bytes_after if self.bytes_before and self.bytes_after else None


def jobs(source: Path, folder: Path, options: Sequence[str]) -> list[Job]:
    """Return the jobs for a folder's *.onnx files, or for a text file with one path a line (# begins a comment).

    Paths are relative to the list. Outputs keep the names, and the places below the folder. Raises BctError for
    a list that cannot be read, names nothing, or names two models that would have one output.
    """
    if source.is_dir():
        paths = [path for path in sorted(source.rglob("*.onnx")) if not path.is_relative_to(folder)]
        places = [path.relative_to(source) for path in paths]
    else:
        paths = [source.parent / line for line in _lines(source)]
        places = [Path(path.name) for path in paths]
    if not paths:
        raise BctError(f"{source}: names no model; give a folder with .onnx files or a list of paths")
    twice = next((place for index, place in enumerate(places) if place in places[:index]), None)
    if twice is not None:
        raise BctError(f"{source}: two models are called {twice}; give them different names")
    return [Job(path, folder / place, tuple(options)) for path, place in zip(paths, places, strict=True)]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BctError(f"{path}: cannot be read as a list of models: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def run(job: Job) -> Result:
    """Compress one model in a process of its own, unless that was done before with the same options."""
    key = None
    try:
        key = _key(job)
        if (done := _finished(job, key)) is not None:
            return Result(job.source, job.target, SKIPPED, 0, "", *done)
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except (BctError, OSError) as error:
        return Result(job.source, job.target, FAILED, 2, str(error))
    paths = [str(path.absolute()) for path in (job.source, job.target, job.report)]
    command = [sys.executable, "-m", "bct_onnx", *paths[:2], "--json", paths[2], "--quiet", *job.options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"ended with exit code {ended.returncode}"]
        return Result(job.source, job.target, FAILED, ended.returncode, lines[-1].removeprefix("error: "))
    report = json.loads(job.report.read_text(encoding="utf-8"))
    _write_whole(job.report, {**report, "key": key})
    return Result(job.source, job.target, DONE, 0, "", report["input"]["bytes"], report["output"]["bytes"])


def _key(job: Job) -> str:
    """Return a hash of the input, the options and the version: equal where the output would be."""
    digest = hashlib.sha256(files.read(job.source).sha256.encode())
    digest.update(json.dumps([__version__, *job.options]).encode())
    return digest.hexdigest()


def _finished(job: Job, key: str) -> tuple[int, int] | None:
    """Return the sizes of input and output if the output is there, whole, and made from this input and options."""
    try:
        report = json.loads(job.report.read_text(encoding="utf-8"))
        if report["key"] == key and files.read(job.target).sha256 == report["output"]["sha256"]:
            return int(report["input"]["bytes"]), int(report["output"]["bytes"])
    except (OSError, ValueError, KeyError, TypeError, BctError):
        pass
    return None


def _write_whole(path: Path, data: Any) -> None:
    try:
        with files.staged(path) as stage:
            stage.path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
            stage.path.replace(path)
    except OSError as error:
        raise BctError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def executor(workers: int, scheduler: str | None) -> Iterator[Executor]:
    """Give what runs jobs: threads that wait for processes here, or the workers of a Dask scheduler.

    Raises BctError if Dask is not installed or its scheduler does not answer.
    """
    if scheduler is None:
        with ThreadPoolExecutor(workers) as pool:
            yield pool
        return
    try:
        distributed: Any = import_module("dask.distributed")
    except ImportError as error:
        raise BctError("--scheduler needs Dask: pip install 'bct-onnx[dask]'") from error
    try:
        client = distributed.Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise BctError(f"{scheduler}: no Dask scheduler answers there: {error}") from error
    with client:
        yield client.get_executor(pure=False)


def run_all(work: Sequence[Job], pool: Executor) -> Iterator[Result]:
    """Yield the result of every job as it ends; a job that breaks its worker is a failed one."""
    pending: dict[Future[Result], Job] = {pool.submit(run, job): job for job in work}
    for future in as_completed(pending):
        job = pending[future]
        try:
            yield future.result()
        except Exception as error:  # whatever a worker's end raises: the other jobs go on
            yield Result(job.source, job.target, FAILED, 2, f"{type(error).__name__}: {error}")


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

    A model that fails does not stop the others. Run again, only what is missing or has changed is done. Exit code 0:
    all are there. 1: some failed.
    """
    console = Console(stderr=True)
    try:
        work = jobs(source, folder, options)
        _check_options(options)
        results = _run_with_progress(work, workers, scheduler, console)
        if json_path is not None:
            _write_whole(json_path, [_plain(result) for result in results])
    except BctError as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    _show(results)
    raise SystemExit(any(result.state == FAILED for result in results))


def _check_options(options: Sequence[str]) -> None:
    """Refuse at once what every job would refuse."""
    try:
        with one.make_context("bct-onnx", ["IN.onnx", "OUT.onnx", *options]):
            pass
    except click.ClickException as error:
        raise BctError(f"options behind `--`: {error.format_message()}") from error


def _run_with_progress(work: Sequence[Job], workers: int, scheduler: str | None, console: Console) -> list[Result]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results = {}
    with executor(workers, scheduler) as pool, Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("models", total=len(work))
        for result in run_all(work, pool):
            results[result.source] = result
            bar.update(task, advance=1, description=result.source.name)
    return [results[job.source] for job in work]


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
        sizes = [size(count) if count else "" for count in (result.bytes_before, result.bytes_after)]
        ratio = f"{result.ratio:.2f}" if result.ratio else ""
        table.add_row(result.source.name, result.state, *sizes, ratio, result.message[:_SHOWN])
    console = Console()
    console.print(table)
    states = [result.state for result in results]
    console.print(", ".join(f"{states.count(state)} {state}" for state in (DONE, SKIPPED, FAILED)))


if __name__ == "__main__":
    main()
