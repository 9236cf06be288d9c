"""Encode a weight in blocks with zero points: scale and zero point of a block are searched together."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .block import BlockFormat, BlockTensor, Floats
from .column_scale import TINY, rounded
from .threads import over_ranges

# Elements of the columns that a thread works on at a time, and how few columns these are.
ELEMENTS, FEWEST_COLUMNS = 1 << 19, 16
# Further column scales tried, octaves below the largest: to where the largest block has one multiple less to go.
FRACTIONS = (0.05,)
# Multiples tried below the one that holds all of a block: clipping its largest numbers may leave less error.
CLIPPED = (0, 1, 2, 3, 4)
# Squared error with zero points, beside that without, from which on they are worth half a byte a block of 32: codes
# that much longer would leave as little.
WORTH = 2.0 ** (-2 * 4 / 32)
LARGEST_NUMBER = 127
# Smallest scale of a column in units of the largest.
SMALLEST = np.float32(2.0**-100)


def encode(
    weight: NDArray[np.floating],
    centered: BlockTensor,
    workers: int = 1,
    importance: NDArray[np.floating] | None = None,
) -> BlockTensor:
    """Return the codes of a finite float [k, n] weight with zero points, from those without: `centered`, in multiples.

    Every column is searched on its own, and keeps the codes that it has where they err less. A row's squared errors are
    weighed with `importance`, [k], where that is given. Every block's range holds zero, which is exact, and a factor
    times a number is an int8. The result depends on nothing but the arguments, not on the number of workers.
    """
    k, n = weight.shape
    blocks, rows, _ = centered.codes.shape
    fmt = replace(centered.format, offset=True)
    weights = np.zeros(blocks * rows, np.float32)
    weights[:k] = 1 if importance is None else importance / max(float(importance.mean()), TINY)
    weights = weights.reshape(blocks, rows, 1)
    codes, exponents, scale = centered.codes.copy(), centered.exponents.copy(), centered.column_scale.copy()
    zeros = np.zeros((blocks, n), np.int8)

    def encode_columns(columns: slice) -> float:
        part = weight[:, columns]
        values = np.zeros((blocks * rows, part.shape[1]), np.float32)
        np.multiply(part, np.float32(1 / centered.tensor_scale), out=values[:k], casting="same_kind")
        values = values.reshape(blocks, rows, -1)
        before = centered.codes[:, :, columns] * (
            centered.block_scale[:, None, columns] / np.float32(centered.tensor_scale)
        )
        before -= values
        found = _search(values, weights, fmt, scale.dtype.type)
        after = found.numbers * found.block_scale[:, None] - values
        better = _sizes(after, weights) < _sizes(before, weights)
        codes[:, :, columns] = np.where(better, found.numbers + found.zeros[:, None], codes[:, :, columns])
        exponents[:, columns] = np.where(better, found.factors - 1, exponents[:, columns])
        zeros[:, columns] = np.where(better, found.zeros, 0)
        scale[columns] = np.where(better, found.scale, scale[columns])
        return float(np.square(np.where(better, after, before)).sum(dtype=np.float64))

    noises = over_ranges(encode_columns, n, max(FEWEST_COLUMNS, ELEMENTS // max(k, 1)), workers)
    noise = sum(noises) * centered.tensor_scale**2
    return replace(
        centered, format=fmt, codes=codes, exponents=exponents, column_scale=scale, zeros=zeros, noise=float(noise)
    )


def _sizes(errors: Floats, weights: Floats) -> Floats:
    """Return the weighed squared errors of columns, of [blocks, rows, columns]."""
    return np.asarray(np.einsum("brn,brn,brx->n", errors, errors, weights))


class _Found(NamedTuple):
    """Codes of some columns: numbers [blocks, rows, columns], factors and zero points [blocks, columns], scales."""

    numbers: Floats
    factors: Floats
    zeros: Floats
    scale: NDArray[np.floating]

    @property
    def block_scale(self) -> Floats:
        """Scales of blocks, [blocks, columns]."""
        return self.factors * self.scale.astype(np.float32)


def _search(values: Floats, weights: Floats, fmt: BlockFormat, kind: type[np.floating]) -> _Found:
    """Return the best codes found of values [blocks, rows, columns], column by column."""
    steps = fmt.high - fmt.low
    high, low = np.maximum(values.max(axis=1), 0), np.minimum(values.min(axis=1), 0)
    most = fmt.factors[-1]
    largest = np.maximum((high - low).max(axis=0) / (steps * most), np.maximum(high, -low).max(axis=0) / LARGEST_NUMBER)
    largest = np.maximum(largest, SMALLEST)
    column = rounded(largest, kind)
    factors, zeros, error = _best_blocks(values, weights, fmt, column.astype(np.float32), (low, high))
    least = error.sum(axis=0)
    for fraction in FRACTIONS:
        stored = rounded(largest * np.float32(2.0**-fraction), kind)
        found = _best_blocks(values, weights, fmt, stored.astype(np.float32), (low, high))
        total = found[2].sum(axis=0)
        better = total < least
        column, least = np.where(better, stored, column), np.minimum(total, least)
        factors, zeros = np.where(better, found[0], factors), np.where(better, found[1], zeros)
    scale = factors * column.astype(np.float32)
    return _Found(_numbers(values / scale[:, None], factors, zeros, fmt), factors, zeros, column)


def _best_blocks(
    values: Floats, weights: Floats, fmt: BlockFormat, scale: Floats, ends: tuple[Floats, Floats]
) -> tuple[Floats, Floats, Floats]:
    """Return the best factor and zero point of each block, and its weighed squared error, all [blocks, columns]."""
    low, high = ends
    smallest = np.clip(np.ceil((high - low) / (scale * (fmt.high - fmt.low))), 1, fmt.factors[-1])
    least = np.full(smallest.shape, np.inf, np.float32)
    best, origin = smallest, np.zeros_like(smallest)
    for below in CLIPPED:
        factors = np.maximum(smallest - below, 1)
        per_unit = 1 / (factors * scale)
        # What is clipped is as much above as below.
        middle = (fmt.high + fmt.low) / 2 - (high + low) / 2 * per_unit
        zeros = np.clip(np.rint(middle), fmt.low, fmt.high)
        scaled = values * per_unit[:, None]
        scaled -= _numbers(scaled, factors, zeros, fmt)
        error = np.einsum("brn,brn,brx->bn", scaled, scaled, weights) * np.square(factors * scale)
        better = error < least
        best, origin = np.where(better, factors, best), np.where(better, zeros, origin)
        least = np.minimum(error, least)
    return best.astype(np.float32), origin.astype(np.float32), least


def _numbers(scaled: Floats, factors: Floats, zeros: Floats, fmt: BlockFormat) -> Floats:
    """Return the nearest numbers, [blocks, rows, columns], that codes have and that times a factor are an int8."""
    low = np.maximum(fmt.low - zeros, -np.floor((LARGEST_NUMBER + 1) / factors))
    high = np.minimum(fmt.high - zeros, np.floor(LARGEST_NUMBER / factors))
    numbers: Floats = np.rint(scaled)
    return np.clip(numbers, low[:, None], high[:, None], out=numbers)
