"""What became codes besides weights, where intermediate results were asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OperatorRow:
    """Nodes of an operator: how many there are, by what became of them; `covered` percent of their results are codes.

    `covered` is None where the sizes of results are not known.
    """

    op: str
    nodes: int
    replaced: int
    between: int
    moves: int
    left: int
    covered: float | None


@dataclass(frozen=True)
class Covered:
    """Coverage in words, by operator, and why nodes and results were left, each reason with its number."""

    words: str
    rows: Sequence[OperatorRow]
    reasons: Sequence[tuple[str, int]]


def find_coverage(coverage: Mapping[str, Any]) -> Covered:
    """Return what a report's coverage says."""
    rows = [
        OperatorRow(
            **{key: row[key] for key in ("op", "nodes", "replaced", "between", "moves", "left")},
            covered=100 * row["covered"] / row["bytes"] if row["bytes"] else None,
        )
        for row in coverage["operators"]
    ]
    weights = _part(coverage["weight_codes"], coverage["weight_bytes"])
    results = _part(coverage["result_codes"], coverage["result_bytes"])
    left = Counter(f"{each['op']}: {each['reason']}" for kind in ("left", "results_left") for each in coverage[kind])
    words = f"{weights} of the weights and {results} of the intermediate results, by bytes, are codes."
    return Covered(words, rows, left.most_common())


def _part(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "an unknown part"
