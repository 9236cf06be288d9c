"""What a run says of itself: the record that `compress` returns and `--json` writes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from passes import LeftInFloat, Options, PassReport

from .coverage import Coverage
from .search import SearchRecord
from .verify import Verification


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
        options: the options used.
        notes: sentences on what differs from the request.
        passes: a report per pass.
        left: weights of the input that are floats in the output, the largest first.
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

    @property
    def ratio(self) -> float:
        """How many times smaller the output is."""
        return self.input.bytes / self.output.bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data; an infinite ratio of signal to noise is null."""
        return {
            "input": _plain(asdict(self.input)),
            "output": _plain(asdict(self.output)),
            "ratio": self.ratio,
            "preset": self.preset,
            "options": {**asdict(self.options), "operators": sorted(self.options.operators)},
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
            "left_in_float": [asdict(weight) for weight in self.left],
            "coverage": self.coverage.to_dict() if self.coverage else None,
            "search": self.search.to_dict() if self.search else None,
            "verification": self.verification.to_dict() if self.verification else None,
        }


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in record.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
