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
    """One weight gets other bits: bytes saved and squared error added, both below 0 where they are more bits."""

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
        """Return the bits with the least error that take at most `limit` bytes, or the smallest there are.

        What the point of the curve leaves, because its next step is one of a large weight, goes to more bits of others.
        """
        fits = np.flatnonzero(self.bytes <= limit)
        return self._filled(self.point(int(fits[0]) if fits.size else len(self._steps)), limit)

    def within_error(self, limit: float) -> Choice:
        """Return the fewest bytes found with a squared error of at most `limit`, or the most bits there are.

        Where the next step of the curve is too much, because it is one of a large weight, others take theirs.
        """
        last = int(np.searchsorted(np.square(self.errors), limit, side="right")) - 1
        point = self.point(max(0, last))
        bits, size, error = dict(point.bits), point.bytes, point.error**2
        while steps := [
            step for number, weight in enumerate(self.weights) for step in _drops(number, weight, bits, limit - error)
        ]:
            step = min(steps, key=lambda step: (step.price, step.weight, -step.bits))
            bits[self.weights[step.weight].name] = step.bits
            size, error = size - step.saved, error + step.added
        return Choice(bits, size, math.sqrt(max(error, 0.0)))

    def everywhere(self, bits: int) -> Choice:
        """Return these bits for every weight, or the nearest that a weight can have."""
        chosen = {w.name: min(w.bytes, key=lambda width: (abs(width - bits), width)) for w in self.weights}
        size = sum(weight.bytes[chosen[weight.name]] for weight in self.weights)
        return Choice(chosen, size, math.sqrt(sum(weight.error[chosen[weight.name]] for weight in self.weights)))

    def point(self, count: int) -> Choice:
        """Return the point after so many steps."""
        bits = {weight.name: max(weight.bytes) for weight in self.weights}
        bits.update({self.weights[step.weight].name: step.bits for step in self._steps[:count]})
        return Choice(bits, int(self.bytes[count]), float(self.errors[count]))

    def _filled(self, choice: Choice, limit: float) -> Choice:
        """Return more bits for weights, while they fit: first where a byte takes away most of the squared error."""
        bits, size, error = dict(choice.bits), choice.bytes, choice.error**2
        while raises := [
            step for number, weight in enumerate(self.weights) for step in _raises(number, weight, bits, limit - size)
        ]:
            step = max(raises, key=lambda step: (step.price, -step.weight, -step.bits))
            bits[self.weights[step.weight].name] = step.bits
            size, error = size - step.saved, error + step.added
        return Choice(bits, size, math.sqrt(max(error, 0.0)))


def _raises(number: int, weight: Weight, bits: Mapping[str, int], room: float) -> list[Step]:
    """Return the steps up from a weight's bits that lessen the error and take at most `room` bytes more."""
    return [step for step in _changes(number, weight, bits) if 0 < -step.saved <= room and step.added < 0]


def _drops(number: int, weight: Weight, bits: Mapping[str, int], room: float) -> list[Step]:
    """Return the steps down from a weight's bits that add at most `room` to the squared error."""
    return [step for step in _changes(number, weight, bits) if step.saved > 0 and step.added <= room]


def _changes(number: int, weight: Weight, bits: Mapping[str, int]) -> list[Step]:
    """Return the steps from a weight's bits to all others."""
    at = bits[weight.name]
    return [
        Step(number, width, weight.bytes[at] - weight.bytes[width], weight.error[width] - weight.error[at])
        for width in weight.bytes
    ]


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
