"""Run jobs, in processes here or on a Dask cluster."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bct_onnx import files
from bct_onnx.errors import BctError, VerificationError
from bct_onnx.package import check_hashes, file_sha256, is_folder
from bct_onnx.version import __version__

from .jobs import Job

DONE, SKIPPED, FAILED = "done", "done before", "failed"


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


def run(job: Job) -> Result:
    """Compress a model, or a folder, in a process of its own, unless that was done before with the same options."""
    key = None
    try:
        key = _key(job)
        if (done := _finished(job, key)) is not None:
            return Result(job.source, job.target, SKIPPED, 0, "", *done)
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except (BctError, OSError) as error:
        return Result(job.source, job.target, FAILED, 2, str(error))
    source = str(job.source.absolute() if job.source.exists() else job.source)
    words = [source, str(job.target.absolute()), "--json", str(job.report.absolute()), "--quiet", *job.options]
    command = [sys.executable, "-m", "bct_onnx", *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"ended with exit code {ended.returncode}"]
        return Result(job.source, job.target, FAILED, ended.returncode, lines[-1].removeprefix("error: "))
    report = {**json.loads(job.report.read_text(encoding="utf-8")), "key": key}
    files.write_json(job.report, report)
    return Result(job.source, job.target, DONE, 0, "", *_sizes(report))


def _key(job: Job) -> str:
    """Return a hash of the input, the options and the version: equal where the output would be."""
    digest = hashlib.sha256(_input_hash(job.source).encode())
    digest.update(json.dumps([__version__, *job.options]).encode())
    return digest.hexdigest()


def _input_hash(source: Path) -> str:
    if not source.exists() and is_folder(source):
        return source.as_posix()  # of the hub: what it holds is not known before it is fetched
    if not source.is_dir():
        return files.read(source).sha256
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    return json.dumps([(path.relative_to(source).as_posix(), file_sha256(path)) for path in paths])


def _finished(job: Job, key: str) -> tuple[int, int] | None:
    """Return the sizes of input and output if the output is there, whole, and made from this input and options."""
    try:
        report = json.loads(job.report.read_text(encoding="utf-8"))
        if report["key"] != key:
            return None
        if job.target.is_dir():
            check_hashes(job.target)
        elif files.read(job.target).sha256 != report["output"]["sha256"]:
            return None
        return _sizes(report)
    except (OSError, ValueError, KeyError, TypeError, BctError, VerificationError):
        return None


def _sizes(report: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes of a report's models, before and after; a package's are summed there."""
    if "bytes_before" in report:
        return int(report["bytes_before"]), int(report["bytes"])
    return int(report["input"]["bytes"]), int(report["output"]["bytes"])


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
