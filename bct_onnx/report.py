"""What a run says of itself: the record that `compress` returns and `--json` writes."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from passes import LeftInFloat, Options, PassReport

from .compression.coverage import Coverage
from .search import SearchRecord
from .sessions import LoadCosts
from .targets import DEFAULT_TARGET
from .verify import Bound, Verification

# Part of the file from which a weight in float matters to its size.
LARGE_PART = 0.01
# What the input has besides float weights: the graph, names, whole numbers.
REST = ""


@dataclass(frozen=True)
class InputRecord:
    """The input model: bytes and hash cover external data."""

    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True)
class OutputRecord:
    """The output model, the opset and IR version it declares and the oldest ONNX Runtime that runs it."""

    path: Path
    bytes: int
    sha256: str
    opset: int
    ir_version: int
    min_onnxruntime: str


@dataclass(frozen=True)
class Report:
    """A finished compression.

    Attributes:
        input: the model read.
        output: the model written.
        preset: name of the preset.
        runtime: the release of ONNX Runtime it was made for, or None for whichever the forms ask for.
        target: name of the target.
        options: the options used.
        notes: sentences on what differs from the request.
        passes: a report per pass.
        left: weights of the input that are floats in the output, the largest first.
        bound: what the outputs were held to, or None where nothing was verified.
        memory: what making a session takes, before and after, or None where nobody measured it.
        verification: the comparison of both models, or None if it was not asked for.
        coverage: what became codes and what did not, or None where intermediate results are none of the request.
        search: how the bits of every weight were chosen, or None where all have the same.
    """

    input: InputRecord
    output: OutputRecord
    preset: str
    options: Options
    notes: tuple[str, ...]
    passes: tuple[PassReport, ...]
    verification: Verification | None
    coverage: Coverage | None = None
    search: SearchRecord | None = None
    left: tuple[LeftInFloat, ...] = ()
    bound: Bound | None = None
    memory: LoadCosts | None = None
    runtime: str | None = None
    target: str = DEFAULT_TARGET

    @property
    def ratio(self) -> float:
        """How many times smaller the output is."""
        return self.input.bytes / self.output.bytes

    @property
    def large_floats(self) -> tuple[LeftInFloat, ...]:
        """Those weights left in float that matter to the size of the file, the largest first."""
        return tuple(weight for weight in self.left if weight.bytes > LARGE_PART * self.output.bytes)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Bytes before and after by the operator that reads a weight, most first; what is no float weight last."""
        sizes: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for tensor in (tensor for report in self.passes for tensor in report.tensors):
            sizes[tensor.op].append((tensor.bytes_before, tensor.bytes_after))
        for weight in self.left:
            sizes[weight.op].append((weight.bytes, weight.bytes))
        sums = {op: (sum(b for b, _ in pairs), sum(a for _, a in pairs)) for op, pairs in sizes.items()}
        known = [sum(each) for each in zip(*sums.values(), strict=True)] or [0, 0]
        before, after = sums.pop(REST, (0, 0))
        rest = (
            max(0, before + self.input.bytes - known[0]),
            max(0, after + self.output.bytes - known[1]),
        )
        return {**dict(sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))), REST: rest}

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data; an infinite ratio of signal to noise is null."""
        return {
            "input": _plain(asdict(self.input)),
            "output": _plain(asdict(self.output)),
            "ratio": self.ratio,
            "preset": self.preset,
            "runtime": self.runtime,
            "target": self.target,
            "options": {
                **asdict(self.options),
                "operators": sorted(self.options.operators),
                "lacks": sorted(self.options.lacks),
            },
            "notes": list(self.notes),
            "passes": [
                {
                    "name": report.name,
                    "replaced": report.replaced,
                    "skipped": [asdict(skipped) for skipped in report.skipped],
                    "bytes_before": report.bytes_before,
                    "bytes_after": report.bytes_after,
                }
                for report in self.passes
            ],
            "tensors": [_plain(asdict(tensor)) for report in self.passes for tensor in report.tensors],
            "sizes": [{"op": op, "before": before, "after": after} for op, (before, after) in self.sizes.items()],
            "left_in_float": [asdict(weight) for weight in self.left],
            "coverage": self.coverage.to_dict() if self.coverage else None,
            "search": self.search.to_dict() if self.search else None,
            "verification": self.verification.to_dict(self.bound) if self.verification else None,
            "memory": asdict(self.memory) if self.memory else None,
        }


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in record.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
