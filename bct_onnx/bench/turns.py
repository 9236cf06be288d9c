"""Measure candidates against each other: fresh processes for loading, interleaved turns for latency."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from bct_onnx.arrays import Array
from bct_onnx.bench.ctranslate2_peer import CTranslate2Runner
from bct_onnx.bench.openvino_peer import OpenVinoRunner
from bct_onnx.bench.records import Candidate, Comparison, Result, Row, Skipped, Spread
from bct_onnx.bench.runners import bytes_of, timed
from bct_onnx.bench.workers import Worker
from bct_onnx.bench.workloads import Feeds, Signature, Workload
from bct_onnx.errors import BctError, first_line
from bct_onnx.sessions import Cost, Options, OrtSession, load_in_fresh_process, open_session

LOADS = 3  # fresh processes per candidate; fewer when the rounds are
REST = 0.02  # seconds before a turn: the threads of the session before stop spinning
MEMORY_SHARE = 0.6  # of the machine's memory that sessions kept side by side may take


@dataclass(frozen=True)
class Timing:
    """How to measure: `rounds` turns per candidate, each of `seconds` and at least one call.

    The clock is one of CLOCKS: `cpu` is the time of all threads, which other work on the machine (and, for
    the worse, a thread that waits spinning) disturbs less than it does `wall`.
    """

    threads: int = 2
    rounds: int = 5
    seconds: float = 1.0
    clock: str = "wall"


Status = Callable[[str], None]


class Benchmark:
    """Measures candidates, the float model first, and collects in `skipped` what did not load or run."""

    def __init__(self, candidates: Sequence[Candidate], timing: Timing, status: Status = lambda _: None) -> None:
        """Prepare to compare candidates of different names; `status` is told what is under way."""
        self._candidates, self._timing, self._status = candidates, timing, status
        self.skipped: list[Skipped] = []

    def compare(self, workloads: Sequence[Workload]) -> Comparison:
        """Measure everything; raise BctError when the float model does not load or run."""
        rows = self._load_all()
        baseline = load_in_fresh_process("-", self._timing.threads).peak_bytes
        needed = sum(row.load_peak_bytes - baseline for row in rows)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        sessions = Sessions(self._timing.threads, side_by_side=needed < MEMORY_SHARE * memory)
        signature = Signature.read(rows[0].candidate.path)
        for workload in workloads:
            results = self._run_all([row.candidate for row in rows], workload, signature, sessions)
            rows = [_with_result(row, workload.label, results) for row in rows]
        sessions.close()
        labels = [workload.label for workload in workloads]
        return Comparison(environment(self._timing), labels, baseline, rows, self.skipped)

    def _load_all(self) -> list[Row]:
        """Load every candidate in processes of its own, in turns, and return a row for each that loads."""
        costs: dict[Candidate, list[Cost]] = {candidate: [] for candidate in self._candidates}
        for turn in range(min(self._timing.rounds, LOADS)):
            for candidate in list(costs):
                self._status(f"load {turn + 1}: {candidate.name}")
                try:
                    costs[candidate].append(load_cost(candidate, self._timing.threads))
                except BctError as error:
                    self._skip(candidate, error)
                    del costs[candidate]
        return [
            Row(
                candidate,
                bytes_of(candidate.path),
                Spread.of([cost.seconds for cost in found]),
                max(cost.peak_bytes for cost in found),
            )
            for candidate, found in costs.items()
        ]

    def _run_all(
        self, candidates: Sequence[Candidate], workload: Workload, signature: Signature, sessions: "Sessions"
    ) -> dict[Candidate, Result]:
        """Run every candidate once for its answer, then all in turns, A B C A B C ..., for the time."""
        feeds = signature.feeds(workload)
        errors: dict[Candidate, float] = {}
        reference = None
        for candidate in candidates:
            try:
                answer = np.asarray(sessions.get(candidate).answer(feeds), np.float64)
                reference = answer if reference is None else reference
                errors[candidate] = float(np.linalg.norm(answer - reference) / (np.linalg.norm(reference) or 1.0))
            except Exception as error:
                self._skip(candidate, BctError(f"{candidate.path}: at {workload.label}: {first_line(error)}"))
        seconds: dict[Candidate, list[float]] = {candidate: [] for candidate in errors}
        for turn in range(self._timing.rounds):
            for candidate in seconds:
                self._status(f"{workload.label}, round {turn + 1} of {self._timing.rounds}: {candidate.name}")
                time.sleep(REST)
                seconds[candidate] += sessions.get(candidate).turn(feeds, self._timing)
        return {c: Result(Spread.of(found), errors[c]) for c, found in seconds.items()}

    def _skip(self, candidate: Candidate, error: BctError) -> None:
        if candidate is self._candidates[0]:
            raise error
        self.skipped.append(Skipped(candidate.name, str(error)))


# What runs models of other runtimes, each in a process of its own.
RUNNERS: dict[str, Callable[[Path, int], object]] = {"openvino": OpenVinoRunner, "ctranslate2": CTranslate2Runner}


class Loaded(Protocol):
    """A model that runs here or in a process of its own."""

    def answer(self, feeds: Feeds) -> Array:
        """Return the first output."""

    def turn(self, feeds: Feeds, timing: Timing) -> list[float]:
        """Return the seconds of runs, at least one, for as long as a turn is."""


@dataclass(frozen=True)
class Here:
    """A session of ONNX Runtime in this process."""

    session: OrtSession

    def answer(self, feeds: Feeds) -> Array:
        """Return the first output."""
        return np.asarray(self.session.run(None, feeds)[0])

    def turn(self, feeds: Feeds, timing: Timing) -> list[float]:
        """Return the seconds of runs."""
        return timed(lambda: self.session.run(None, feeds), timing.seconds, timing.clock)


@dataclass(frozen=True)
class Elsewhere:
    """A model in another runtime, in a process of its own: two runtimes' threads would be in each other's way."""

    worker: Worker

    def answer(self, feeds: Feeds) -> Array:
        """Return the first output."""
        return np.asarray(self.worker.call("answer", feeds))

    def turn(self, feeds: Feeds, timing: Timing) -> list[float]:
        """Return the seconds of runs, by a clock of that process."""
        seconds: list[float] = self.worker.call("turn", feeds, timing.seconds, timing.clock)
        return seconds


class Sessions:
    """The sessions of the candidates: kept side by side, or (when memory does not allow it) one at a time."""

    def __init__(self, threads: int, side_by_side: bool) -> None:
        """Start without a session."""
        self._threads, self._side_by_side = threads, side_by_side
        self._open: dict[tuple[Path, str], Loaded] = {}

    def get(self, candidate: Candidate) -> Loaded:
        """Return the model of a candidate, loading it where it is not loaded."""
        key = candidate.path, candidate.library
        if key not in self._open:
            if not self._side_by_side:
                self.close()
            self._open[key] = self._load(candidate)
        return self._open[key]

    def close(self) -> None:
        """Let go of all of them."""
        for loaded in self._open.values():
            if isinstance(loaded, Elsewhere):
                loaded.worker.close()
        self._open.clear()

    def _load(self, candidate: Candidate) -> Loaded:
        if candidate.runtime in RUNNERS:
            return Elsewhere(Worker(partial(RUNNERS[candidate.runtime], candidate.path, self._threads)))
        return Here(open_session(candidate.path, Options(self._threads), candidate.library))


def load_cost(candidate: Candidate, threads: int) -> Cost:
    """Return what loading takes in a process of its own; BctError where the model does not load."""
    if candidate.runtime in RUNNERS:
        with Worker(partial(RUNNERS[candidate.runtime], candidate.path, threads)) as worker:
            bare = load_in_fresh_process("-", threads).peak_bytes
            return Cost(worker.made.seconds, worker.made.peak_bytes + bare)
    return load_in_fresh_process(candidate.path, threads, candidate.library)


def _with_result(row: Row, label: str, results: Mapping[Candidate, Result]) -> Row:
    found = {label: results[row.candidate]} if row.candidate in results else {}
    return replace(row, results=row.results | found)


def environment(timing: Timing) -> dict[str, str | int]:
    """Return what figures depend on: processor, threads, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 1,
        "threads": timing.threads,
        "clock": timing.clock,
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
    }
