"""From the curve to bits that meet the goal: what was expected is compared with what is measured, and corrected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bct_onnx.search.choice import Choice, Curve

# Files written for a goal in bytes, at most.
MOST_TRIES = 7
# Part of the allowed error that a try aims at, and part that is near enough not to try for more.
AIM, NEAR_ERROR = 0.98, 0.97
# Part of a file's bytes that is not worth another try.
NEAR_BYTES = 0.005

Bits = Mapping[str, int]


@dataclass(frozen=True)
class Try:
    """Bits whose file was measured, and the squared error of its outputs."""

    choice: Choice
    found: float

    @property
    def expected(self) -> float:
        """The squared error that the curve expects."""
        return self.choice.error**2


def within_bytes(curve: Curve, limit: float, size_of: Callable[[Bits], int]) -> tuple[Choice, bool]:
    """Return the bits with the least error whose file takes at most `limit` bytes, and whether there are any.

    `size_of` tells the bytes of a file: what it takes besides the curve's bytes is found so.
    """
    room, too_much, best = limit, math.inf, None
    for _ in range(MOST_TRIES):
        choice = curve.within_bytes(room)
        size = size_of(choice.bits)
        if size > limit:
            too_much = room
        elif best is None or choice.error < best.error:
            best = choice
        # What the file takes besides differs with the widths: each has functions of its own.
        left = limit - (size - choice.bytes)
        if left == room or left >= too_much or (size > limit and choice.bytes > room):
            break
        room = left
    return (choice, False) if best is None else (best, True)


def within_error(
    curve: Curve, limit: float, error_of: Callable[[Bits], float], tries: int = MOST_TRIES
) -> tuple[Choice, bool]:
    """Return the bits of the smallest file found that errs by at most `limit`, and whether any does.

    `error_of` tells what the file of some bits errs by; it is asked for the most bits, and for `tries` others at most.
    The most bits come first: they err by what the curve knows nothing of, the activations' codes. From there the
    squared error is taken to go in a straight line with the one expected, then in the line through the tries around
    the limit.
    """

    def attempt(choice: Choice) -> Try:
        return Try(choice, error_of(choice.bits) ** 2)

    met, other = attempt(curve.point(0)), None
    if met.found > limit**2:
        return met.choice, False
    fewest = curve.point(len(curve.bytes) - 1)
    for _ in range(tries):
        near = met.found >= (NEAR_ERROR * limit) ** 2
        if near or met.choice.bytes - fewest.bytes <= NEAR_BYTES * met.choice.bytes:
            break
        choice = curve.within_error(_aim(met, other, (AIM * limit) ** 2))
        if not fewest.bytes <= choice.bytes < met.choice.bytes:
            break
        tried = attempt(choice)
        if tried.found <= limit**2:
            # The line through two tries below the limit leads on only where no try above it is known.
            met, other = tried, met if other is None or other.expected < tried.expected else other
        else:
            other, fewest = tried, choice
    return met.choice, True


def _aim(met: Try, other: Try | None, target: float) -> float:
    """Return the expected squared error at which the target is found, by the line through both tries."""
    if other is None:
        return met.expected + target - met.found
    if not math.isfinite(other.found):
        return (met.expected + other.expected) / 2
    run, rise = other.expected - met.expected, other.found - met.found
    return met.expected + (target - met.found) * (run / rise if run * rise > 0 else 1.0)
