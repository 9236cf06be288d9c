"""How far all answers of a model are from another's, in one number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bct_onnx.arrays import Array, Feed, Outputs
from bct_onnx.fidelity.kinds import Kind
from bct_onnx.fidelity.outputs import OutputError, find_mismatch, output_error

# Digits of a measured error that count: the rest is the order in which threads add.
DIGITS = 3


@dataclass(frozen=True)
class Answers:
    """What a model answers to feeds.

    Attributes:
        feeds: the feeds.
        outputs: the outputs by name, for each of them.
    """

    feeds: Sequence[Feed]
    outputs: Sequence[Outputs]


def output_errors(expected: Answers, answered: Sequence[Outputs]) -> tuple[dict[str, OutputError], dict[str, str]]:
    """Return the error of every output, and what differs in kind, as sentences, of those where something does."""
    errors, mismatches = {}, {}
    everything = list(zip(expected.feeds, expected.outputs, answered, strict=True))
    for name in dict.fromkeys(name for outputs in expected.outputs for name in outputs):
        found = [(feed, one[name], other.get(name)) for feed, one, other in everything if name in one]
        mismatch = next(filter(None, (_mismatch(one, other) for _, one, other in found)), None)
        if mismatch:
            mismatches[name] = mismatch
        else:
            feeds, ones, others = map(list, zip(*found, strict=True))
            errors[name] = output_error(name, ones, others, feeds)
    return errors, mismatches


def _mismatch(expected: Array, answered: Array | None) -> str | None:
    return "is missing" if answered is None else find_mismatch(expected, answered)


def overall_error(errors: Mapping[str, OutputError], mismatches: Mapping[str, str], *, worst: bool) -> float:
    """Return one error of all outputs: that of the worst output on its worst feed, or the root mean square of all.

    Infinite for a difference in kind. Caches count only where a model gives nothing else.
    """
    if mismatches:
        return math.inf
    answers = list(_answers(errors.values()))
    if worst:
        return max((error.error for error in answers if error.error is not None), default=0.0)
    squares = [error.mean**2 for error in answers if error.mean is not None]
    return math.sqrt(sum(squares) / len(squares)) if squares else 0.0


def _answers(errors: Iterable[OutputError]) -> list[OutputError]:
    known = [error for error in errors if error.error is not None]
    return [error for error in known if error.kind != Kind.CACHE.value] or known


def round_error(error: float) -> float:
    """Return an error with the digits that are the same on every run."""
    return float(f"{error:.{DIGITS}g}")
