"""The curve of size against error, and the bits of every weight at a point of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Weight:
    """What each width of one weight's codes takes and does.

    Attributes:
        name: its name in the report.
        bytes: bytes of codes and scales, by width.
        error: squared relative error of the model's outputs when this weight alone is coded, by width.
        measured: False where the error was not run but taken from weights like it.
    """

    name: str
    bytes: Mapping[int, int]
    error: Mapping[int, float]
    measured: bool = True


@dataclass(frozen=True)
class Choice:
    """A point of the curve: bits by name of the weight, bytes of all weights, and the relative error expected."""

    bits: Mapping[str, int]
    bytes: int
    error: float


@dataclass(frozen=True)
class Step:
    """One weight gets fewer bits: bytes saved, squared error added."""

    weight: int
    bits: int
    saved: int
    added: float

    @property
    def price(self) -> float:
        """Squared error for each byte saved."""
        return self.added / self.saved


class Curve:
    """All weights from their most bits down, the step with the least error for each byte first.

    Errors of different weights add up as squares. Only widths on the lower convex hull of a weight's own curve are
    used, so the steps of a weight come in order and every point is the best of its size up to one step.
    """

    def __init__(self, weights: Sequence[Weight]) -> None:
        """Lay out the steps; the first point has the most bits everywhere."""
        self.weights = tuple(weights)
        steps = [step for number, weight in enumerate(self.weights) for step in _steps(number, weight)]
        self._steps = sorted(steps, key=lambda step: (step.price, step.weight, -step.bits))
        first_bytes = sum(weight.bytes[max(weight.bytes)] for weight in self.weights)
        first_error = sum(weight.error[max(weight.bytes)] for weight in self.weights)
        self.bytes = first_bytes - np.cumsum([0, *(step.saved for step in self._steps)])
        self.errors = np.sqrt(first_error + np.cumsum([0.0, *(step.added for step in self._steps)]))

    def within_bytes(self, limit: float) -> Choice:
        """Return the point with the least error that takes at most `limit` bytes, or the smallest there is."""
        fits = np.flatnonzero(self.bytes <= limit)
        return self.point(int(fits[0]) if fits.size else len(self._steps))

    def point(self, count: int) -> Choice:
        """Return the point after so many steps."""
        bits = {weight.name: max(weight.bytes) for weight in self.weights}
        bits.update({self.weights[step.weight].name: step.bits for step in self._steps[:count]})
        return Choice(bits, int(self.bytes[count]), float(self.errors[count]))


def _steps(number: int, weight: Weight) -> list[Step]:
    """Return the steps down the lower convex hull of one weight's curve."""
    steps: list[Step] = []
    at = max(weight.bytes)
    while lower := [bits for bits in weight.bytes if weight.bytes[bits] < weight.bytes[at]]:
        options = [
            Step(number, bits, weight.bytes[at] - weight.bytes[bits], max(0.0, weight.error[bits] - weight.error[at]))
            for bits in lower
        ]
        step = min(options, key=lambda option: (option.price, -option.saved))
        if not math.isfinite(step.added):
            break
        steps.append(step)
        at = step.bits
    return steps
