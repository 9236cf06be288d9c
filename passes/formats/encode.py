"""Encode a weight: column scale and block exponents searched together for the least squared error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import encode_offset, encode_trellis
from .block import BlockFormat, BlockTensor, Floats, exponent_scale
from .column_scale import READ_ELEMENTS, TINY, kind_of, largest_of_columns, rounded
from .compiled import FEWEST, Encoder
from .threads import even_width, over_ranges

# Columns that a thread works on at a time, at most: numpy is fast at long rows.
COLUMNS = 384
# Elements of these columns that are worked on at a time: three float32 buffers of 2 MB. Smaller ones stay in a core's
# second-level cache, but two threads that make short calls to numpy wait for each other instead (half as fast).
PIECE_ELEMENTS = 1 << 19
# Rows that every block has a multiple of.
SHORTEST_BLOCK = 8
# Column scales tried over the span that the exponents leave open (one step of theirs).
SHIFT_CANDIDATES, FINE_CANDIDATES = 8, 2
# A block is also tried with exponents below the one that holds its largest value, down to half an octave or one; with
# multiples of a scale, of which most blocks have 5 to 15, down to a third or more.
CLIPPED_STEPS = {1: (0, 1), 4: (0, 1, 2)}
CLIPPED_MULTIPLES = (0, 1, 2, 3, 4)
# Wider codes gain nothing from clipping a column's largest value.
WIDEST_CLIPPED = 7


def encode(
    weight: NDArray[np.floating],
    fmt: BlockFormat,
    workers: int = 1,
    importance: NDArray[np.floating] | None = None,
) -> BlockTensor:
    """Return the codes of a finite float [k, n] weight.

    Every column is searched on its own: the column scale, and each block's exponent among the smallest that does not
    clip and the ones just below it. A row's squared errors are weighed with `importance`, [k], where that is given: the
    mean square of what the row is multiplied with. The squared error of a column is never larger than that of the
    largest scale, with which nothing clips and every error is at most half its block's scale. The result depends on
    nothing but the arguments, not on the number of workers. Codes lie in memory as the weight does.

    In a trellis all rows weigh the same. Where codes that stand for themselves err less (they may hold a weight's
    numbers exactly), the result has those, as its format says. So it is with zero points, which have to be worth their
    bytes.
    """
    uniform = _encode(weight, fmt.uniform.centered, workers, importance)
    if fmt.offset:
        found = encode_offset.encode(weight, uniform, workers, importance)
        return found if found.noise < encode_offset.WORTH * uniform.noise else uniform
    if not fmt.trellis or not uniform.noise:
        return uniform
    return min(encode_trellis.encode(weight, fmt, workers), uniform, key=lambda tensor: tensor.noise)


def _encode(
    weight: NDArray[np.floating], fmt: BlockFormat, workers: int, importance: NDArray[np.floating] | None
) -> BlockTensor:
    k, n = weight.shape
    blocks, rows = fmt.blocks(k)
    largest, empty = _largest_scale(weight, fmt, workers)
    # In units of this power of two, squares of the tiniest and the hugest weights are within float32's range.
    tensor_scale = np.exp2(np.floor(np.log2(largest.max(initial=TINY))))
    # A column of zeros beside huge ones still has a scale that can be divided by.
    largest = np.maximum(largest / tensor_scale, TINY)
    kind = kind_of(largest, ~empty)
    transposed = weight.strides[0] < weight.strides[1]
    codes = np.empty((n, blocks * rows) if transposed else (blocks * rows, n), np.int8)
    codes = codes.T if transposed else codes
    exponents = np.zeros((blocks, n), np.uint8)
    column_scale: NDArray[np.floating] = np.empty(n, kind)
    # Where all blocks have the same scale, short ones will do.
    length = rows if fmt.max_exponent else SHORTEST_BLOCK
    rows_weight = None if importance is None else _rows_weight(importance, blocks * rows, length)

    def encode_columns(columns: slice) -> tuple[float, float]:
        part = _Columns(weight[:, columns], 1 / tensor_scale, blocks * rows // length, length)
        found, column_scale[columns] = _search(part, fmt, largest[columns], kind, rows_weight)
        block_scale: Floats = exponent_scale(found, fmt) * column_scale[columns].astype(np.float32)
        noise = signal = 0.0
        for piece, values, scratch in part.pieces():
            errors = _round(values, np.reciprocal(block_scale[piece]), fmt, scratch) * np.square(block_scale[piece])
            noise += float(errors.sum(dtype=np.float64))
            signal += float(np.vdot(values, values))
            where = slice(piece.start * length, piece.stop * length)
            codes[where, columns] = scratch.codes.reshape(where.stop - where.start, -1)
        if fmt.max_exponent:
            exponents[:, columns] = found
        return noise, signal

    energies = over_ranges(encode_columns, n, even_width(n, COLUMNS), workers)
    unit = float(tensor_scale)
    noise, signal = np.sum(energies, axis=0) * unit**2 if energies else (0.0, 0.0)
    blockwise = (
        codes.reshape(blocks, rows, n) if not transposed else codes.T.reshape(n, blocks, rows).transpose(1, 2, 0)
    )
    return BlockTensor(fmt, k, blockwise, exponents, column_scale, unit, float(noise), float(signal))


def largest_size(weight: NDArray[np.floating], workers: int = 1) -> float:
    """Return the largest magnitude in a [k, n] weight: NaN or infinity where it holds one, 0 where it is empty."""
    rows = weight if weight.strides[0] > weight.strides[1] else weight.T
    step = max(1, READ_ELEMENTS // max(rows.shape[1], 1))

    def read(part: slice) -> float:
        return float(np.maximum(rows[part].max(initial=0), -rows[part].min(initial=0)))

    return float(np.max(over_ranges(read, len(rows), step, workers), initial=0))


class _Scratch(NamedTuple):
    """Room for what is computed of a piece, [blocks, rows, columns]: scaled values, codes."""

    scaled: Floats
    codes: Floats


@dataclass(frozen=True)
class _Columns:
    """Some columns of a weight, [k, columns], times `factor`, in blocks."""

    weight: NDArray[np.floating]
    factor: np.float32
    blocks: int
    rows: int

    def pieces(self) -> Iterator[tuple[slice, Floats, _Scratch]]:
        """Yield (blocks, float32 values [blocks, rows, columns], room for two such); the next piece takes the room."""
        n = self.weight.shape[1]
        count = min(max(1, PIECE_ELEMENTS // max(self.rows * n, 1)), self.blocks)
        values, scaled, codes = (np.empty((count, self.rows, n), np.float32) for _ in range(3))
        for start in range(0, self.blocks, count):
            size = min(count, self.blocks - start)
            matrix = values[:size].reshape(-1, n)
            part = self.weight[start * self.rows : (start + size) * self.rows]
            np.multiply(part, self.factor, out=matrix[: len(part)], casting="same_kind")
            matrix[len(part) :] = 0
            yield slice(start, start + size), values[:size], _Scratch(scaled[:size], codes[:size])


def _largest_scale(weight: NDArray[np.floating], fmt: BlockFormat, workers: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Return per column the scale, [n], with which its largest value needs the largest exponent and code.

    Second, which columns are all zeros: any scale does for those.
    """
    peak = largest_of_columns(weight, workers)
    scale: Floats = np.maximum(peak / (fmt.high * fmt.factors[-1]), TINY)
    return np.exp2(np.ceil(np.log2(scale))) if fmt.powers else scale, peak == 0


def _rows_weight(importance: NDArray[np.floating], padded: int, rows: int) -> Floats:
    """Return importances around 1, [padded / rows, rows]; padding has none."""
    weights = np.zeros(padded, np.float32)
    weights[: len(importance)] = importance / max(float(importance.mean()), TINY)
    return weights.reshape(-1, rows)


def _search(
    columns: _Columns, fmt: BlockFormat, largest: Floats, kind: type[np.floating], rows_weight: Floats | None
) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
    """Return the best exponents, [blocks, columns], and column scales, [columns], over the candidate column scales."""
    stored = np.stack([rounded(largest * np.float32(2.0**-fraction), kind) for fraction in _candidates(fmt)])
    if len(stored) == 1 and not fmt.max_exponent:
        return np.zeros((columns.blocks, len(largest)), np.uint8), stored[0]
    scales = stored.astype(np.float32)
    exponents = np.empty((len(scales), columns.blocks, len(largest)), np.uint8)
    errors = np.zeros(scales.shape, np.float32)
    for piece, values, scratch in columns.pieces():
        weight = None if rows_weight is None else rows_weight[piece]
        exponents[:, piece], error = _best_exponents(values, scales, fmt, scratch, weight)
        errors += error
    best = errors.argmin(axis=0)
    return np.take_along_axis(exponents, best[None, None], 0)[0], np.take_along_axis(stored, best[None], 0)[0]


def _candidates(fmt: BlockFormat) -> NDArray[np.float64]:
    """Return how many octaves below the largest scale each candidate lies."""
    if fmt.powers:
        return np.zeros(1)
    if not fmt.max_exponent:
        return np.arange(SHIFT_CANDIDATES if fmt.bits <= WIDEST_CLIPPED else 1) / SHIFT_CANDIDATES
    if fmt.whole:
        # Down to where the largest block has one multiple less to go.
        step = float(np.log2(fmt.factors[-1] / fmt.factors[-2]))
        return np.arange(FINE_CANDIDATES) * step / FINE_CANDIDATES
    count = SHIFT_CANDIDATES if fmt.steps == 1 else FINE_CANDIDATES
    return np.arange(count) / (count * fmt.steps)


def _best_exponents(
    values: Floats, scales: Floats, fmt: BlockFormat, scratch: _Scratch, rows_weight: Floats | None
) -> tuple[NDArray[np.uint8], Floats]:
    """Return, for every candidate of the column scales, each block's best exponent and each column's squared error.

    `values` are [blocks, rows, columns], `scales` [candidates, columns]; [candidates, blocks, columns] and
    [candidates, columns] are returned.
    """
    shifted = fmt.steps == 1 and fmt.max_exponent <= 1 and not fmt.whole
    if Encoder.offered and shifted and rows_weight is None and values.shape[2] >= FEWEST:
        return Encoder.offered.tried(values, scales, (fmt.low, fmt.high, TINY), fmt.max_exponent == 1)
    peak = np.maximum(values.max(axis=1), -values.min(axis=1))
    scales = scales[:, None]
    needed = np.maximum(peak, TINY) / (scales * np.float32(fmt.high))
    steps = needed - 1 if fmt.whole else np.log2(needed) * fmt.steps
    smallest = np.clip(np.ceil(steps), 0, fmt.max_exponent).astype(np.int8)
    exponents, least = smallest.astype(np.uint8), np.full(smallest.shape, np.inf, np.float32)
    tried = CLIPPED_MULTIPLES if fmt.whole else CLIPPED_STEPS[fmt.steps]
    for below in tried if fmt.max_exponent else (0,):
        lower = np.maximum(smallest - np.int8(below), 0).astype(np.uint8)
        block_scale = exponent_scale(lower, fmt) * scales
        error = np.stack([_round(values, per_unit, fmt, scratch, rows_weight) for per_unit in 1 / block_scale])
        error *= np.square(block_scale)
        # A boolean mask would be ten times as slow.
        exponents += (error < least) * (lower - exponents)
        np.minimum(error, least, out=least)
    return exponents, least.sum(axis=1)


def _round(
    values: Floats, per_unit: Floats, fmt: BlockFormat, scratch: _Scratch, rows_weight: Floats | None = None
) -> Floats:
    """Leave the codes of `values * per_unit` in `scratch`; return each block's squared error, [blocks, columns].

    `per_unit` are steps of a code per unit of the values, [blocks, columns]; errors are in such steps.
    """
    scaled, codes = scratch
    if Encoder.offered and rows_weight is None and values.shape[2] >= FEWEST:
        return Encoder.offered.rounded(values, per_unit, (fmt.low, fmt.high), codes)
    np.multiply(values, per_unit[:, None, :], out=scaled)
    np.rint(scaled, out=codes)
    np.clip(codes, fmt.low, fmt.high, out=codes)
    np.subtract(scaled, codes, out=scaled)
    np.multiply(scaled, scaled, out=scaled)
    error: Floats = scaled.sum(axis=1) if rows_weight is None else np.einsum("brn,br->bn", scaled, rows_weight)
    return error
