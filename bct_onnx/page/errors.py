"""Rows of errors: by output and by kind of input, each beside its bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bct_onnx.fidelity.kinds import Kind

# Rows that are shown at once.
MOST_ROWS = 8


@dataclass(frozen=True)
class OutputRow:
    """An output and its error; None where a figure has no meaning.

    Attributes:
        name: its name.
        kind: what it is.
        error, bound: how far it errs, and how far it may.
        part: percent of the bound that is used, at most 100.
        impact: the error in the model's own terms.
        largest: largest difference.
        worst: the feed on which it errs most.
    """

    name: str
    kind: str
    error: float | None
    bound: float | None
    part: float | None
    impact: str
    largest: float | None
    worst: str


@dataclass(frozen=True)
class InputRow:
    """A kind of input and the error of the output that uses up most of its bound there."""

    name: str
    output: str
    error: float
    bound: float | None
    part: float | None


@dataclass(frozen=True)
class Errors:
    """What both models answered: rows by output (answers first, the largest error first) and by input."""

    outputs: Sequence[OutputRow]
    shown: Sequence[OutputRow]
    rest: str
    inputs: Sequence[InputRow]
    random: Sequence[str]


def find_errors(verification: Mapping[str, Any]) -> Errors:
    """Return the rows that a report's verification says."""
    feeds, outputs = verification["feeds"], verification["outputs"]
    caches = {name for name, output in outputs.items() if output["kind"] == Kind.CACHE.value}
    if len(caches) == len(outputs):
        caches = set()
    rows = sorted(
        (_output(name, output, feeds) for name, output in outputs.items()),
        key=lambda row: (row.name in caches, -(row.error or 0.0)),
    )
    answers = [row for row in rows if row.name not in caches]
    shown = answers[:MOST_ROWS]
    rest = rows[len(shown) :]
    if len(rest) == 1:
        shown, rest = rows, []
    inputs = [row for number, feed in enumerate(feeds) if (row := _input(number, feed, outputs, caches)) is not None]
    return Errors(rows, shown, _summed(rest, caches), inputs, verification.get("random", ()))


def impact(output: Mapping[str, Any]) -> str:
    """Return what an error of an output costs in the model's own terms, as far as that is known."""
    if output.get("perplexity") is not None:
        return f"perplexity {output['perplexity']:+.1%}"
    if output.get("decisions") is not None:
        return f"{output['decisions']:.1%} same decisions"
    if output.get("same") is not None:
        return f"{output['same']:.1%} equal values"
    return ""


def _output(name: str, output: Mapping[str, Any], feeds: Sequence[str]) -> OutputRow:
    error, bound, worst = output.get("error"), output.get("bound"), output.get("worst")
    said = feeds[worst] if worst is not None and worst < len(feeds) else ""
    return OutputRow(
        name, output["kind"], error, bound, _part(error, bound), impact(output), output.get("max_abs"), said
    )


def _input(number: int, feed: str, outputs: Mapping[str, Any], caches: set[str]) -> InputRow | None:
    found = [
        InputRow(feed, name, error, output.get("bound"), _part(error, output.get("bound")))
        for name, output in outputs.items()
        if name not in caches and len(by_feed := output.get("by_feed") or ()) > number
        if (error := by_feed[number]) is not None
    ]
    return max(found, key=lambda row: (row.part or 0.0, row.error), default=None)


def _summed(rest: Sequence[OutputRow], caches: set[str]) -> str:
    if not rest:
        return ""
    what = "caches" if all(row.name in caches for row in rest) else "other outputs"
    errors = [row.error for row in rest if row.error is not None]
    return f"{len(rest)} {what}" + (f", errors up to {max(errors):.3g}" if errors else "")


def _part(error: float | None, bound: float | None) -> float | None:
    return min(100.0, 100 * error / bound) if error is not None and bound else None
