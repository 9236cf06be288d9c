"""What channels are shifted by and divided by so that a product of their codes has the least noise: a descent.

Rows x [rows, k] are quantized in steps of their peak, columns of the weight W [k, n] in steps of theirs. Of rows
(x - m) / s and a weight s * W the products then err, in squares and but for a common factor, by

    mean(peak of a row ^ 2) * sum(s^2 * W^2) + share * sum(peak of a column ^ 2) * mean(sum of a row's squares)

Peaks are taken as norms of a high power, so that every channel near a peak counts, and Adam (arXiv 1412.6980) goes down
the logarithm over log(s) and m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# What the weight's noise counts beside that of the activation. Measured on all-MiniLM-L6-v2 and STS-B, error of 8 bits
# with a share of 0, 0.3, 0.5, 1: 0.038, 0.036, 0.036, 0.036; of 4 bits it hardly matters.
SHARE = 0.4
STEPS, RATE, MOMENTUM, SQUARES = 80, 0.06, 0.8, 0.95
# Part of the rate that is left at the end, and the part of it at which means move, in standard deviations.
LAST_RATE, MEAN_RATE = 0.2, 0.5
# Peaks are norms of the power 2^DOUBLINGS.
DOUBLINGS = 4
# Columns of a weight that tell how large its peaks are.
MOST_COLUMNS = 256

Floats = NDArray[np.float64]


class Noise(NamedTuple):
    """The noise of a product by its cause, in squares."""

    activation: float
    weight: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.activation + self.weight


@dataclass(frozen=True)
class Quantized:
    """Rows [rows, k] and the weight [k, n] that they are multiplied with, both about to be quantized."""

    rows: Floats
    weight: NDArray[np.floating]

    @cached_property
    def squares(self) -> Floats:
        """Sums of the squares of the weight's rows, [k]."""
        squares: Floats = np.einsum("kn,kn->k", self.weight, self.weight, dtype=np.float64)
        return squares

    @cached_property
    def magnitudes(self) -> NDArray[np.float32]:
        """Those of the weight, [k, n]."""
        magnitudes: NDArray[np.float32] = np.abs(self.weight).astype(np.float32, copy=False)
        return magnitudes

    def noise(self, mean: Floats, size: Floats) -> Noise:
        """Return the noise of the product with channels shifted by `mean` and divided by `size`, [k] each."""
        x = (self.rows - mean) / size
        squares = float(np.square(size) @ self.squares)
        peaks = (self.magnitudes * size.astype(np.float32)[:, None]).max(axis=0)
        steps = float(np.square(peaks, dtype=np.float64).sum())
        activation = float(np.square(np.abs(x).max(axis=1)).mean()) * squares
        return Noise(activation, SHARE * steps * float(np.square(x).sum(axis=1).mean()))

    def least(self, mean: Floats, size: Floats, shifts: bool) -> tuple[Floats, Floats]:
        """Return means and sizes, [k] each, with less noise than the given ones; `shifts`: whether means may move."""
        unit = self.rows.std(axis=0)
        if not np.all(unit > 0):
            return mean, size
        every = -(-self.weight.shape[1] // MOST_COLUMNS)
        descent = _Descent(
            ((self.rows - mean) / unit).astype(np.float32),
            self.squares * np.square(unit),
            self.magnitudes[:, ::every] * unit.astype(np.float32)[:, None],
            float(every),
        )
        at = np.stack([np.log(size / unit), np.zeros(len(size))])
        first, second = np.zeros_like(at), np.zeros_like(at)
        rate = RATE * np.array([[1.0], [MEAN_RATE if shifts else 0.0]])
        for step in range(1, STEPS + 1):
            gradient = descent.gradient(*at)
            first = MOMENTUM * first + (1 - MOMENTUM) * gradient
            second = SQUARES * second + (1 - SQUARES) * np.square(gradient)
            slope = first / (1 - MOMENTUM**step) / (np.sqrt(second / (1 - SQUARES**step)) + 1e-9)
            at = at - rate * (1 - (1 - LAST_RATE) * step / STEPS) * slope
        log, moved = at
        found = mean + moved * unit, np.exp(log - (log + np.log(unit)).mean()) * unit
        return found if self.noise(*found).total < self.noise(mean, size).total else (mean, size)


def least_noise(
    rows: Floats, weight: NDArray[np.floating], starts: Sequence[tuple[Floats, Floats]], shifts: bool
) -> tuple[Floats, Floats, float]:
    """Return means and sizes [k] of channels, and the part of the noise of plain codes that they leave.

    A descent from the best of `starts` sees every other one of the rows [rows, k], and those between judge: it fits
    what rows have by chance, too. `shifts`: whether means may move. The part is 1 where noise is none, or beyond float.
    """
    seen, judged = Quantized(rows[::2], weight), Quantized(rows[1::2], weight)

    def noise(found: tuple[Floats, Floats]) -> float:
        return judged.noise(*found).total

    before = noise((np.zeros(len(weight)), np.ones(len(weight))))
    best = min(starts, key=noise)
    best = min(best, seen.least(*best, shifts), key=noise)
    return (*best, noise(best) / before if np.isfinite(before) and before > 0 else 1.0)


@dataclass(frozen=True)
class _Descent:
    """The logarithm of the noise, of channels in units of their deviation.

    Attributes:
        rows: shifted rows, [rows, k].
        squares: sums of the weight's squares, [k].
        weight: magnitudes of some columns of the weight, [k, columns].
        every: how many columns each of them stands for.
    """

    rows: NDArray[np.float32]
    squares: Floats
    weight: NDArray[np.float32]
    every: float

    def gradient(self, log: Floats, moved: Floats) -> Floats:
        """Return the gradient [2, k] at the logarithms of sizes and at means."""
        size = np.exp(log)
        x = (self.rows - moved.astype(np.float32)) / size.astype(np.float32)
        peak, share = _peaks(np.abs(x), axis=1)
        rows = np.square(peak)[:, None] * share
        # A share goes with a high power of x: it is 0 where x is.
        tilted = (rows / np.where(x == 0, np.float32(1), x)).sum(axis=0) / size
        squares, most = np.square(size) * self.squares, float(np.square(peak).sum())
        column, parts = _peaks(self.weight * size.astype(np.float32)[:, None], axis=0)
        steps, length = np.square(column), np.square(x).mean(axis=0)
        activation = most / len(x) * squares.sum()
        weight = SHARE * self.every * float(steps.sum()) * float(length.sum())
        of_activation = np.stack([squares / squares.sum() - rows.sum(axis=0) / most, -tilted / most])
        of_weight = np.stack(
            [(steps * parts).sum(axis=1) / steps.sum() - length / length.sum(), -x.mean(axis=0) / size / length.sum()]
        )
        part = activation / (activation + weight)
        return np.asarray(2 * (part * of_activation + (1 - part) * of_weight), np.float64)


def _peaks(magnitudes: NDArray[np.float32], axis: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return norms of a high power along an axis, and the part that each element has in its norm."""
    largest = np.maximum(magnitudes.max(axis=axis, keepdims=True), np.float32(1e-30))
    powers = magnitudes / largest
    for _ in range(DOUBLINGS):
        np.square(powers, out=powers)
    total = powers.sum(axis=axis, keepdims=True)
    powers /= np.maximum(total, np.float32(1e-30))
    return np.squeeze(largest * total ** np.float32(1 / 2**DOUBLINGS), axis=axis), powers
