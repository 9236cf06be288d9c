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
POWER = 1 << DOUBLINGS
# Part of a peak below which an element is none of it: its power is next to nothing, and slow to compute with where
# float32 has not all its bits.
LEAST_PART = np.float32(0.01)
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
        at = np.stack([np.log(size / unit), np.zeros(len(size))])
        descent = _Descent(
            ((self.rows - mean) / unit).astype(np.float32),
            self.squares * np.square(unit),
            self.magnitudes[:, ::every] * unit.astype(np.float32)[:, None],
            float(every),
            at[0],
        )
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


class _Descent:
    """The logarithm of the noise, of channels in units of their deviation.

    Rows and columns are brought to a peak of 1 before the first step, so that float32 has room for high powers of them
    at any later one.
    """

    def __init__(
        self, rows: NDArray[np.float32], squares: Floats, weight: NDArray[np.float32], every: float, log: Floats
    ) -> None:
        """Take shifted rows [rows, k], sums of the weight's squares [k], and magnitudes of some of its columns.

        `weight`, [k, columns], stands for `every` times as many columns; `log` [k] are sizes to begin with.
        """
        self.rows, self.squares, self.every, self.start = rows, squares, every, log
        size = np.exp(log).astype(np.float32)
        self.row_peaks = _not_zero(np.abs(rows / size).max(axis=1))
        scaled = weight * size[:, None]
        column_peaks = _not_zero(scaled.max(axis=0))
        scaled /= column_peaks
        self.column_squares = np.square(column_peaks, dtype=np.float64)
        scaled *= scaled >= LEAST_PART
        self.powers = _power(scaled)

    def gradient(self, log: Floats, moved: Floats) -> Floats:
        """Return the gradient [2, k] at the logarithms of sizes and at means."""
        size = np.exp(log)
        x = self.rows - moved.astype(np.float32)
        x /= size.astype(np.float32)
        length, mean = np.einsum("rk,rk->k", x, x) / len(x), x.mean(axis=0)
        x /= self.row_peaks[:, None]
        x *= np.abs(x) >= LEAST_PART
        # Of a norm of the power p an element has the part x^p / sum(x^p); its slope goes with x^(p - 1).
        below = _power_below(x)
        x *= below
        totals = _not_zero(x.sum(axis=1))
        peaks = np.square(self.row_peaks * totals ** np.float32(1 / POWER), dtype=np.float64)
        each, most = (peaks / totals).astype(np.float32), float(peaks.sum())
        rows = np.einsum("r,rk->k", each, x)
        tilted = np.einsum("r,rk->k", each / self.row_peaks, below) / size
        squares = np.square(size) * self.squares
        grown = np.exp(POWER * (log - self.start)).astype(np.float32)
        totals = _not_zero(np.einsum("k,kn->n", grown, self.powers))
        steps = self.column_squares * np.square(totals ** np.float32(1 / POWER), dtype=np.float64)
        columns = grown * np.einsum("kn,n->k", self.powers, (steps / totals).astype(np.float32))
        activation = most / len(x) * squares.sum()
        weight = SHARE * self.every * float(steps.sum()) * float(length.sum())
        of_activation = np.stack([squares / squares.sum() - rows / most, -tilted / most])
        of_weight = np.stack([columns / steps.sum() - length / length.sum(), -mean / size / length.sum()])
        part = activation / (activation + weight)
        return np.asarray(2 * (part * of_activation + (1 - part) * of_weight), np.float64)


def _not_zero(peaks: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(peaks, np.float32(1e-30))


def _power(magnitudes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the power POWER of magnitudes."""
    powers = np.square(magnitudes)
    for _ in range(DOUBLINGS - 1):
        np.square(powers, out=powers)
    return powers


def _power_below(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the power POWER - 1 of x: x * x^2 * x^4 and so on."""
    powers, found = np.square(x), x.copy()
    for _ in range(DOUBLINGS - 2):
        found *= powers
        np.square(powers, out=powers)
    found *= powers
    return found
