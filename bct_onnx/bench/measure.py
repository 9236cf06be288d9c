"""Measure candidates against each other: fresh processes for loading, interleaved turns for latency."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from bct_onnx.bench import load_once
from bct_onnx.bench.model_files import file_bytes, read_inputs
from bct_onnx.bench.records import Candidate, Comparison, Cost, Row, Skipped, Spread, one_line
from bct_onnx.bench.workloads import Feeds, Workload, make_feeds
from bct_onnx.errors import BctError

LOADS = 3  # fresh processes per candidate; fewer when the rounds are
REST = 0.02  # seconds before a turn: the threads of the session before stop spinning
MEMORY_SHARE = 0.6  # of the machine's memory that sessions kept side by side may take


@dataclass(frozen=True)
class Effort:
    """How long to measure: `rounds` turns per candidate, each of `seconds` and at least one call."""

    threads: int = 2
    rounds: int = 5
    seconds: float = 1.0


Say = Callable[[str], None]


def compare(
    candidates: Sequence[Candidate], workloads: Sequence[Workload], effort: Effort, say: Say = lambda _: None
) -> Comparison:
    """Measure all candidates, the float model first; raise BctError when that one does not load or run.

    Candidates that do not load are listed as skipped; one that fails on a workload has no figure there.
    """
    skipped: list[Skipped] = []
    rows = load_all(candidates, effort, skipped, say)
    baseline = load_in_fresh_process("-", effort.threads).peak_bytes
    needed = sum(row.load_peak_bytes - baseline for row in rows)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    sessions = Sessions(effort.threads, keep=needed < MEMORY_SHARE * memory)
    inputs = read_inputs(candidates[0].path)
    for workload in workloads:
        feeds = make_feeds(inputs, workload)
        time_workload(rows, workload.label, feeds, sessions=sessions, effort=effort, skipped=skipped, say=say)
    labels = [workload.label for workload in workloads]
    return Comparison(environment(effort), labels, baseline, rows, skipped)


def load_all(candidates: Sequence[Candidate], effort: Effort, skipped: list[Skipped], say: Say) -> list[Row]:
    """Load every candidate in processes of its own, in turns, and return a row for each that loads."""
    costs: dict[str, list[Cost]] = {candidate.name: [] for candidate in candidates}
    failed: dict[str, str] = {}
    for _ in range(min(effort.rounds, LOADS)):
        for candidate in (c for c in candidates if c.name not in failed):
            say(f"load {candidate.name}")
            try:
                costs[candidate.name].append(load_in_fresh_process(candidate.path, effort.threads))
            except BctError as error:
                failed[candidate.name] = str(error)
    if candidates[0].name in failed:
        raise BctError(failed[candidates[0].name])
    skipped += [Skipped(name, reason) for name, reason in failed.items()]
    return [
        Row(
            candidate,
            file_bytes(candidate.path),
            Spread.of([cost.seconds for cost in costs[candidate.name]]),
            max(cost.peak_bytes for cost in costs[candidate.name]),
        )
        for candidate in candidates
        if candidate.name not in failed
    ]


def load_in_fresh_process(path: Path | str, threads: int) -> Cost:
    """Make a session of the model (`-`: of none) in a new process; raise BctError when it does not load."""
    command = [sys.executable, load_once.__file__, str(path), str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        reason = run.stderr.strip().rpartition("\n")[2][:200] or f"killed by signal {-run.returncode}"
        raise BctError(f"{path}: does not load in ONNX Runtime {ort.__version__}: {reason}")
    return Cost(**json.loads(run.stdout))


class Sessions:
    """The sessions of the candidates: kept side by side, or (when memory does not allow it) one at a time."""

    def __init__(self, threads: int, keep: bool) -> None:
        """Start without a session."""
        self._threads, self._keep = threads, keep
        self._open: dict[Path, ort.InferenceSession] = {}

    def get(self, path: Path) -> ort.InferenceSession:
        """Return the session of a model, loading it where it is not loaded."""
        if path not in self._open:
            if not self._keep:
                self._open.clear()
            self._open[path] = load_once.session(path, self._threads)
        return self._open[path]


def time_workload(
    rows: Sequence[Row],
    label: str,
    feeds: Feeds,
    *,
    sessions: Sessions,
    effort: Effort,
    skipped: list[Skipped],
    say: Say,
) -> None:
    """Write latency and error of every row for one workload: A B C A B C ..., after one call each."""
    seconds: dict[str, list[float]] = {}
    reference = None
    for row in rows:
        name = row.candidate.name
        try:
            answer = np.asarray(sessions.get(row.candidate.path).run(None, feeds)[0], np.float64)
            reference = answer if reference is None else reference
            row.error[label] = float(np.linalg.norm(answer - reference) / (np.linalg.norm(reference) or 1.0))
        except Exception as error:
            if row is rows[0]:
                raise BctError(f"{row.candidate.path}: does not run at {label}: {one_line(error)}") from error
            skipped.append(Skipped(name, f"at {label}: {one_line(error)}"))
        else:
            seconds[name] = []
    for turn in range(effort.rounds):
        for row in (row for row in rows if row.candidate.name in seconds):
            say(f"{label}: round {turn + 1} of {effort.rounds}, {row.candidate.name}")
            session = sessions.get(row.candidate.path)
            time.sleep(REST)
            seconds[row.candidate.name] += _turn(session, feeds, effort.seconds)
    for row in rows:
        if row.candidate.name in seconds:
            row.latency[label] = Spread.of(seconds[row.candidate.name])


def _turn(session: ort.InferenceSession, feeds: Feeds, seconds: float) -> list[float]:
    found: list[float] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feeds)
        found.append(time.perf_counter() - start)
    return found


def environment(effort: Effort) -> dict[str, str | int]:
    """Return what figures depend on: processor, threads, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.split(": ", 1)[1] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 1,
        "threads": effort.threads,
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
    }
