"""Rows of sizes: by operator, by weight, by width of codes; and what stayed in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

# Rows of a table that are shown at once; the others are summed, and a second table has all.
MOST_ROWS = 12
# Part of the file below which operators are summed, and bytes below which a constant in float is no news.
SMALLEST_SHARE, SMALLEST_FLOAT = 0.0005, 1024
# What a weight is stored as where that is no width of codes.
HOW = {"half": "float16", "whole": "int16", "table": "table", "tied": "another's"}
FLOAT = "float"


@dataclass(frozen=True)
class Size:
    """Bytes before and after, and the bar for them: percent of the largest before that there is."""

    name: str
    before: int
    after: int
    full: float = 0.0
    left: float = 0.0

    @property
    def ratio(self) -> float | None:
        """How many times smaller, or None where nothing is left."""
        return self.before / self.after if self.after else None


Row = TypeVar("Row", bound=Size)


@dataclass(frozen=True)
class WeightSize(Size):
    """One weight, or several stored as one.

    Attributes:
        op, node: what reads it.
        shape: its shape.
        bits: width of its codes in words, or what else it is stored as.
        sqnr_db: signal to quantization noise, decibels, or None.
        alone: error of the outputs with this weight alone at its width, or None where nobody searched.
        reason: why it stayed in float; empty for others.
    """

    op: str = ""
    node: str = ""
    shape: tuple[int, ...] = ()
    bits: str = ""
    sqnr_db: float | None = None
    alone: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Top:
    """The largest rows, and the sum of the rest."""

    shown: Sequence[Size]
    rest: Size | None
    count: int
    all: Sequence[Size]


def by_operator(report: Mapping[str, Any]) -> Sequence[Size]:
    """Return the bytes by operator, with bars."""
    rows = [Size(each["op"], each["before"], each["after"]) for each in report["sizes"]]
    least = SMALLEST_SHARE * max(sum(row.after for row in rows), 1)
    large = [row for row in rows if row.name and row.after >= least]
    small = [row for row in rows if row.name and row.after < least]
    if small:
        name = f"{len(small)} other operators" if len(small) > 1 else small[0].name
        large.append(Size(name, sum(row.before for row in small), sum(row.after for row in small)))
    # Constants that several weights are stored with may count for each of them: then nothing is left to tell.
    large += [replace(row, name="graph and whole numbers") for row in rows if not row.name and row.before and row.after]
    return _with_bars(large)


def by_weight(report: Mapping[str, Any]) -> Sequence[WeightSize]:
    """Return all float weights of the input, as the passes met them, with bars; those left in float last."""
    search = report.get("search") or {}
    alone = {
        weight["name"]: weight["errors"].get(str(weight["bits"]))
        for weight in search.get("weights", ())
        if weight.get("errors")
    }
    rows = [
        WeightSize(
            tensor["name"],
            tensor["bytes_before"],
            tensor["bytes_after"],
            op=tensor.get("op", ""),
            node=tensor.get("node", ""),
            shape=tuple(tensor["shape"]),
            bits=HOW.get(tensor["lowering"], f"{tensor['bits']} bits"),
            sqnr_db=tensor["sqnr_db"],
            alone=alone.get(tensor["name"]),
        )
        for tensor in report.get("tensors", ())
    ]
    return _with_bars([*rows, *floats(report)])


def largest_first(rows: Sequence[Row]) -> list[Row]:
    """Return rows in the order of the bytes that they take afterwards."""
    return sorted(rows, key=lambda row: (-row.after, -row.before, row.name))


def floats(report: Mapping[str, Any]) -> list[WeightSize]:
    """Return the weights left in float, the largest first, with bars as parts of the largest."""
    rows = [
        WeightSize(
            weight["name"],
            weight["bytes"],
            weight["bytes"],
            op=weight["op"],
            node=weight["node"],
            bits=FLOAT,
            reason=weight["reason"],
        )
        for weight in report.get("left_in_float", ())
    ]
    return largest_first(_with_bars(rows))


def by_width(weights: Sequence[WeightSize]) -> Sequence[Size]:
    """Return the bytes of all weights by what they are stored as, the widest codes first."""
    kinds = sorted({weight.bits for weight in weights}, key=lambda kind: (_width(kind), kind), reverse=True)
    rows = []
    for kind in kinds:
        found = [weight for weight in weights if weight.bits == kind]
        name = f"{kind}, {len(found)} {'weight' if len(found) == 1 else 'weights'}"
        rows.append(Size(name, sum(weight.before for weight in found), sum(weight.after for weight in found)))
    return _with_bars(rows)


def top(rows: Sequence[Size], least: int = 0) -> Top:
    """Return the first rows, of at least so many bytes afterwards, and the sum of the rest."""
    shown = [row for row in rows[:MOST_ROWS] if row.after >= least]
    rest = rows[len(shown) :]
    if not rest:
        return Top(shown, None, 0, shown)
    # Without a bar: many times the largest row, it would leave nothing of the others.
    summed = Size("", sum(row.before for row in rest), sum(row.after for row in rest))
    return Top(shown, summed, len(rest), rows)


def _with_bars(rows: Sequence[Row]) -> list[Row]:
    largest = max((max(row.before, row.after) for row in rows), default=0) or 1
    return [replace(row, full=100 * row.before / largest, left=100 * row.after / largest) for row in rows]


def _width(kind: str) -> int:
    return 32 if kind == FLOAT else int(kind.removesuffix(" bits")) if kind[0].isdigit() else 16
