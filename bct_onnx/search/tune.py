"""From the curve to a file that meets the goal: what was expected is compared with what was written, and corrected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from bct_onnx.search.choice import Choice, Curve

# Files written and verified for one goal, at most.
MOST_TRIES = 4
# Part of the allowed error, or of the allowed bytes, that is near enough not to try for more.
NEAR_ERROR, NEAR_BYTES = 0.9, 0.995
# After each try with too large an error, the next one aims lower than proportion says by this factor once more.
CAUTION = 0.95

Bits = Mapping[str, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Tuned(Generic[T]):
    """What was written last, the choice behind it and whether it meets the goal."""

    written: T
    choice: Choice
    met: bool


def within_bytes(curve: Curve, limit: float, size_of: Callable[[Bits], int], write: Callable[[Bits], T]) -> Tuned[T]:
    """Write the file with the least error that takes at most `limit` bytes.

    `size_of` tells the bytes of a file without verifying it: what it takes besides the curve's bytes is found so.
    """
    choice, size = curve.within_bytes(limit), 0
    for _ in range(MOST_TRIES):
        size = size_of(choice.bits)
        better = curve.within_bytes(limit - (size - choice.bytes))
        if better == choice:
            break
        choice = better
    return Tuned(write(choice.bits), choice, size <= limit)


def within_error(curve: Curve, limit: float, write: Callable[[Bits], T], error_of: Callable[[T], float]) -> Tuned[T]:
    """Write the smallest file found whose measured error is at most `limit`, or the one with the most bits."""
    aim = limit
    tried: list[tuple[Choice, float]] = []
    best: Choice | None = None
    for _ in range(MOST_TRIES):
        choice = curve.within_error(aim)
        if any(choice == other for other, _ in tried):
            break
        written = write(choice.bits)
        error = error_of(written)
        tried.append((choice, error))
        if error <= limit and (best is None or choice.bytes < best.bytes):
            best = choice
        if NEAR_ERROR * limit <= error <= limit:
            break
        aim = min(limit, choice.error or limit) if not math.isfinite(error) else choice.error * limit / max(error, 1e-9)
        aim *= CAUTION ** sum(found > limit for _, found in tried)
    last = best or curve.within_error(0.0)
    if not tried or tried[-1][0] != last:
        written = write(last.bits)
    return Tuned(written, last, best is not None)
