"""What became codes besides weights, where intermediate results were asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bct_onnx.compression.coverage import OperatorCoverage


@dataclass(frozen=True)
class Covered:
    """Coverage in words, by operator, and why nodes and results were left, each reason with its number."""

    words: str
    operators: Sequence[OperatorCoverage]
    reasons: Sequence[tuple[str, int]]


def find_coverage(coverage: Mapping[str, Any]) -> Covered:
    """Return what a report's coverage says."""
    operators = [OperatorCoverage(**row) for row in coverage["operators"]]
    weights = _part(coverage["weight_codes"], coverage["weight_bytes"])
    results = _part(coverage["result_codes"], coverage["result_bytes"])
    left = Counter(f"{each['op']}: {each['reason']}" for kind in ("left", "results_left") for each in coverage[kind])
    words = f"{weights} of the weights and {results} of the intermediate results, by bytes, are codes."
    return Covered(words, operators, left.most_common())


def _part(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "an unknown part"
