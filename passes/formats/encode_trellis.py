"""Encode a weight by a trellis: scales by a search with an expected error, then the best path, then the best scale."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from . import trellis
from .block import BlockFormat, BlockTensor, Floats
from .column_scale import TINY, kind_of, largest_of_columns, rounded
from .compiled import FEWEST, Encoder, Table
from .threads import even_width, over_ranges
from .viterbi import MOST_COST, least_paths

# Columns that a thread works on at a time, at most, and their elements: fewer columns leave numpy little to do at a
# call. It takes 32 bytes an element, and what the search for a path keeps at hand of so many columns is in a
# second-level cache.
COLUMNS, ELEMENTS = 384, 1 << 20
# Column scales tried, each a quarter of an octave below the one before.
CANDIDATES, OCTAVE = 10, 4
# Mean squared error of a number that is not clipped, by bits, in units of the levels, which reach to REACH.
EXPECTED = {2: 48.0, 3: 7.2, 4: 1.7, 5: 0.9, 6: 0.375}
REACH = 63.0
# A number is looked up as the nearest of so many in a unit of the levels, up to a half beyond them.
FINENESS, FURTHEST = 16, 96
# Smallest scale of a column beside the largest.
SMALLEST = np.float32(2.0**-100)
# Levels that a code and its added bit leave to choose from are every fourth for each last bit of the code.
SUBSETS = 4
# Cost of EXPECTED in a block that is not shifted.
UNIT = 24


@cache
def _table(bits: int) -> Table:
    """Return what numbers cost at every fourth level, from each of the first four on, and their codes there."""
    levels = trellis.levels(bits).astype(np.float64).reshape(-1, SUBSETS).T
    numbers = np.arange(-FURTHEST * FINENESS, FURTHEST * FINENESS + 1) / FINENESS
    squares = np.square(numbers[:, None] - levels[:, None, :])
    least = squares.min(axis=2)
    # Only differences between subsets count.
    least = (least - least.min(axis=0)) * (UNIT / EXPECTED[bits])
    costs = np.concatenate([least, 4 * least, np.zeros((SUBSETS, 1))], axis=1)
    costs = np.minimum(np.rint(costs), MOST_COST).astype(np.uint16)
    # The place of the nearest level among all.
    nearest = (squares.argmin(axis=2) * SUBSETS + np.arange(SUBSETS)[:, None]).T
    codes = (nearest // 2 - (1 << (bits - 1))).astype(np.int8)
    return Table(np.ascontiguousarray(costs.T), np.stack([codes, trellis.levels(bits)[nearest]], axis=2))


def encode(weight: NDArray[np.floating], fmt: BlockFormat, workers: int = 1) -> BlockTensor:
    """Return the codes of a finite float [k, n] weight in a format with a trellis.

    Every column is encoded on its own: the column scale and the shifts with the least error to be expected, the path
    with the least error for those, and the column scale with the least error for that path. The result depends on
    nothing but the weight and the format, not on the number of workers. Codes lie in memory as the weight does.
    """
    k, n = weight.shape
    blocks, rows = fmt.blocks(k)
    peak = largest_of_columns(weight, workers)
    largest: Floats = peak / np.float32(REACH * 2**fmt.max_exponent)
    # In units of this power of two, squares of the tiniest and the hugest weights are within float32's range.
    unit = np.exp2(np.floor(np.log2(largest.max(initial=TINY))))
    # Columns of zeros, or that far below the others, have scales that can be divided by.
    largest = np.maximum(largest / np.float32(unit), SMALLEST)
    smallest = largest * np.float32(2.0 ** (-CANDIDATES / OCTAVE))
    kind = kind_of(smallest, peak > 0)
    transposed = weight.strides[0] < weight.strides[1]
    codes = np.empty((n, blocks * rows) if transposed else (blocks * rows, n), np.int8)
    codes = codes.T if transposed else codes
    exponents = np.zeros((blocks, n), np.uint8)
    column_scale: NDArray[np.floating] = np.zeros(n, kind)

    def encode_columns(columns: slice) -> tuple[float, float]:
        values = np.zeros((blocks * rows, columns.stop - columns.start), np.float32)
        np.multiply(weight[:, columns], np.float32(1 / unit), out=values[:k], casting="same_kind")
        exponents[:, columns], scale = _scales(values.reshape(blocks, rows, -1), largest[columns], fmt)
        codes[:, columns], numbers = _codes(values, scale, exponents[:, columns], fmt.bits, k)
        by = np.repeat(exponents[:, columns], rows, axis=0)
        steps = (numbers << by).astype(np.float32)[:k]
        scale = _best_scale(values[:k], steps, scale, kind)
        scale[peak[columns] == 0] = 0
        column_scale[columns] = scale
        error = values[:k] - steps * scale.astype(np.float32)
        return float(np.vdot(error, error)), float(np.vdot(values, values))

    width = max(1, min(COLUMNS, ELEMENTS // max(blocks * rows, 1)))
    energies = over_ranges(encode_columns, n, even_width(n, width), workers)
    noise, signal = np.sum(energies, axis=0) * float(unit) ** 2 if energies else (0.0, 0.0)
    blockwise = codes.T.reshape(n, blocks, rows).transpose(1, 2, 0) if transposed else codes.reshape(blocks, rows, n)
    return BlockTensor(fmt, k, blockwise, exponents, column_scale, float(unit), float(noise), float(signal))


def _scales(values: Floats, largest: Floats, fmt: BlockFormat) -> tuple[NDArray[np.uint8], Floats]:
    """Return the shifts, [blocks, columns], and scales, [columns], with the least error to be expected of values.

    `values` are [blocks, rows, columns]. What is expected is EXPECTED for each number, and what is beyond REACH.
    """
    octave = OCTAVE if fmt.max_exponent else 0
    # From the double of the first candidate on, where blocks may be shifted.
    each = largest * np.exp2(np.arange(octave, -CANDIDATES, -1) / OCTAVE).astype(np.float32)[:, None]
    furthest, constant = each * np.float32(REACH), values.shape[1] * EXPECTED[fmt.bits] * np.square(each)
    if Encoder.offered and values.shape[2] >= FEWEST:
        best, shifts = Encoder.offered.expected(values, furthest, constant, octave)
    else:
        best, shifts = _expected(np.abs(values), furthest, constant, octave)
    return shifts, np.take_along_axis(each, octave + best[None], 0)[0]


def _expected(
    sizes: Floats, furthest: Floats, constant: Floats, octave: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return which candidate has the least error to be expected, [columns], and shifts: see `Encoder.expected`."""
    least = np.full(furthest.shape[1], np.inf, np.float32)
    best, shifts = np.zeros(len(least), np.int32), np.zeros((len(sizes), len(least)), np.uint8)
    known: dict[int, Floats] = {}

    def expected(scale: int) -> Floats:
        """Return the error of each block."""
        if scale not in known:
            beyond = np.maximum(sizes - furthest[scale], 0)
            known[scale] = np.square(beyond).sum(axis=1) + constant[scale]
        return known[scale]

    for candidate in range(len(furthest) - octave):
        error, shifted = expected(candidate + octave), expected(candidate)
        total = np.minimum(error, shifted).sum(axis=0)
        better = total < least
        least = np.where(better, total, least)
        best = np.where(better, candidate, best)
        shifts = np.where(better, shifted < error, shifts)
        known.pop(candidate)
    return best.astype(np.int32), shifts.astype(np.uint8)


def _codes(
    values: Floats, scale: Floats, shifts: NDArray[np.uint8], bits: int, k: int
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return codes and the numbers that they stand for, [rows, columns], of which only the first k rows count.

    `shifts` are [blocks, columns].
    """
    table, per_unit = _table(bits), np.float32(FINENESS) / scale
    if Encoder.offered:
        return Encoder.offered.codes(values, per_unit, shifts, table, k)
    by = np.repeat(shifts, len(values) // len(shifts), axis=0)
    scaled = np.ldexp(values * per_unit, -by.astype(np.int8))
    places = np.clip(np.rint(scaled), -FURTHEST * FINENESS, FURTHEST * FINENESS).astype(np.int16)
    places += np.int16(FURTHEST * FINENESS)
    numbers = len(table.coded)
    kinds = places + by * np.int16(numbers)
    kinds[k:] = 2 * numbers
    path = least_paths(table.costs.T, trellis.in_steps(kinds))
    subset = trellis.in_rows(2 * path + trellis.added_bits(path))
    codes, stand_for = table.coded[places, subset].transpose(2, 0, 1)
    # What rows past k stand for nobody asks, but the path goes through them.
    codes[k:] &= 1
    return codes, stand_for


def _best_scale(values: Floats, steps: Floats, scale: Floats, kind: type[np.floating]) -> NDArray[np.floating]:
    """Return the scales with the least error for steps, [k, columns], or `scale` where there is none."""
    size = np.einsum("kn,kn->n", steps, steps)
    best = np.einsum("kn,kn->n", values, steps) / np.maximum(size, TINY)
    with np.errstate(over="ignore"):
        found = best.astype(kind)
    return np.where((best >= scale / 2) & (found > 0) & np.isfinite(found), found, rounded(scale, kind))
