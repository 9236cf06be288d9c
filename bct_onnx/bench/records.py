"""The records a benchmark is made of: what is compared, what was measured, and how the figures relate."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

from bct_onnx.sessions import Cost

Kind = Literal["float", "peer", "ours", "given"]
Runtime = Literal["onnxruntime", "openvino", "ctranslate2", "onnxruntime-genai"]


@dataclass(frozen=True)
class Candidate:
    """One model of the comparison: where it is, who made it, how, and (when made here) at what cost.

    `library` is the path of the operators that its sessions have besides the runtime's own, if any. What another
    runtime than ONNX Runtime loads runs in a process of its own.
    """

    name: str
    path: Path
    kind: Kind
    how: str
    made: Cost | None = None
    library: str = ""
    runtime: Runtime = "onnxruntime"


@dataclass(frozen=True)
class Skipped:
    """A model that could not be made, loaded or run, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Spread:
    """Minimum and median of `count` times, in seconds."""

    minimum: float
    median: float
    count: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Spread":
        """Summarize a list that is not empty."""
        return cls(min(seconds), median(seconds), len(seconds))


@dataclass(frozen=True)
class Result:
    """One candidate on one workload: seconds per call, and the relative error of its first output.

    The error is the norm of the difference from the float model's output over the norm of that.
    """

    latency: Spread
    error: float


@dataclass(frozen=True)
class Row:
    """The measurements of one candidate; `results` by workload label, without those it failed at.

    `file_bytes` counts external data, `load_peak_bytes` the whole process.
    """

    candidate: Candidate
    file_bytes: int
    load: Spread
    load_peak_bytes: int
    results: dict[str, Result] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A whole benchmark: the float model's row first; the baseline is a process that loads no model."""

    environment: dict[str, str | int]
    workloads: list[str]
    baseline_bytes: int
    rows: list[Row]
    skipped: list[Skipped]

    def has_peers(self) -> bool:
        """Tell whether another tool's model takes part."""
        return any(row.candidate.kind == "peer" for row in self.rows)

    def to_float(self, row: Row, workload: str) -> float | None:
        """Return how many times faster than the float model `row` is (minimum over minimum)."""
        return _ratio(row, self.rows[:1], lambda r: _fastest(r, workload))

    def to_best_peer(self, row: Row, workload: str) -> float | None:
        """Return how many times faster `row` is than the fastest model that other tools made."""
        return _ratio(row, self._others(), lambda r: _fastest(r, workload))

    def smaller_than_float(self, row: Row) -> float | None:
        """Return how many times smaller than the float model's file `row` is."""
        return _ratio(row, self.rows[:1], lambda r: r.file_bytes)

    def smaller_than_best_peer(self, row: Row) -> float | None:
        """Return how many times smaller `row` is than the smallest file that other tools made."""
        return _ratio(row, self._others(), lambda r: r.file_bytes)

    def _others(self) -> list[Row]:
        return [row for row in self.rows if row.candidate.kind in {"float", "peer"}]


def _fastest(row: Row, workload: str) -> float | None:
    return row.results[workload].latency.minimum if workload in row.results else None


def _ratio(row: Row, others: Iterable[Row], value: Callable[[Row], float | None]) -> float | None:
    own, best = value(row), min((v for v in map(value, others) if v is not None), default=None)
    return best / own if own and best else None
