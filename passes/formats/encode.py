"""Encode a weight: column scale and block exponents searched together for the least squared error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .block import BlockFormat, BlockTensor, Codes, Floats, exponent_scale
from .threads import over_ranges

# Elements of a chunk of columns: its three float32 buffers stay in a core's second-level cache.
CHUNK_ELEMENTS = 1 << 16
# Fewest columns of a chunk: a row's part is two lines of a cache.
CHUNK_COLUMNS = 32
# Elements of a chunk that is only read once.
READ_ELEMENTS = 1 << 20
# Column scales tried over the span that the exponents leave open (one step of theirs).
SHIFT_CANDIDATES, FINE_CANDIDATES = 8, 2
# A block is also tried with exponents below the one that holds its largest value, down to half an octave or one.
CLIPPED_STEPS = {1: (0, 1), 4: (0, 1, 2)}
# Wider codes gain nothing from clipping a column's largest value.
WIDEST_CLIPPED = 7
# Smallest normal float32: scale of a column of zeros.
TINY = float(np.finfo(np.float32).tiny)
# Smallest scale in float16.
SMALLEST_SCALE = np.float16(2**-24)


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
    """
    k, n = weight.shape
    blocks, rows = fmt.blocks(k)
    largest = _largest_scale(weight, fmt, workers)
    # In units of this power of two, squares of the tiniest and the hugest weights are within float32's range.
    tensor_scale = np.exp2(np.floor(np.log2(largest.max(initial=TINY))))
    largest /= tensor_scale
    by_columns = weight.strides[0] < weight.strides[1]
    codes = (
        np.empty((n, blocks, rows), np.int8).transpose(1, 2, 0) if by_columns else np.empty((blocks, rows, n), np.int8)
    )
    exponents = np.empty((blocks, n), np.uint8)
    column_scale = np.empty(n, np.float16)
    rows_weight = None if importance is None else _rows_weight(importance, blocks, rows)

    def encode_columns(columns: slice) -> tuple[float, float]:
        chunk = np.zeros((blocks * rows, columns.stop - columns.start), np.float32)
        np.multiply(weight[:, columns], 1 / tensor_scale, out=chunk[:k], casting="same_kind")
        best = _search(chunk.reshape(blocks, rows, -1), fmt, largest[columns], rows_weight)
        codes[:, :, columns], exponents[:, columns], column_scale[columns] = best[:3]
        return best.noise, float(np.vdot(chunk, chunk))

    energies = over_ranges(encode_columns, n, max(CHUNK_COLUMNS, CHUNK_ELEMENTS // (blocks * rows)), workers)
    unit = float(tensor_scale)
    noise, signal = np.sum(energies, axis=0) * unit**2 if energies else (0.0, 0.0)
    return BlockTensor(fmt, k, codes, exponents, column_scale, unit, float(noise), float(signal))


def is_finite(weight: NDArray[np.floating], workers: int = 1) -> bool:
    """Tell whether a [k, n] weight holds neither NaN nor infinity."""
    rows = weight if weight.strides[0] > weight.strides[1] else weight.T
    step = max(1, READ_ELEMENTS // max(rows.shape[1], 1))
    return all(over_ranges(lambda part: bool(np.isfinite(rows[part]).all()), len(rows), step, workers))


class _Encoded(NamedTuple):
    codes: Codes
    exponents: NDArray[np.uint8]
    column_scale: NDArray[np.float16]
    noise: float


def _largest_scale(weight: NDArray[np.floating], fmt: BlockFormat, workers: int) -> Floats:
    """Return per column the scale, [n], with which its largest value needs the largest exponent and code."""
    k, n = weight.shape
    peak = np.empty(n, np.float32)

    def read(columns: slice) -> None:
        part = weight[:, columns]
        peak[columns] = np.maximum(part.max(axis=0, initial=0), -part.min(axis=0, initial=0))

    over_ranges(read, n, max(CHUNK_COLUMNS, READ_ELEMENTS // max(k, 1)), workers)
    top = np.float32(2.0 ** (fmt.max_exponent / fmt.steps))
    scale: Floats = np.maximum(peak / (fmt.high * top), TINY)
    return np.exp2(np.ceil(np.log2(scale))) if fmt.powers else scale


def _float16(scale: Floats) -> NDArray[np.float16]:
    """Round scales to float16, up where it has so few bits that rounding down would clip half a code."""
    rounded = np.maximum(scale.astype(np.float16), SMALLEST_SCALE)
    return np.where(rounded < scale * np.float32(1 - 2**-10), np.nextafter(rounded, np.float16(np.inf)), rounded)


def _rows_weight(importance: NDArray[np.floating], blocks: int, rows: int) -> Floats:
    """Return importances around 1, [blocks, rows]; padding has none."""
    padded = np.zeros(blocks * rows, np.float32)
    padded[: len(importance)] = importance / max(float(importance.mean()), TINY)
    return padded.reshape(blocks, rows)


def _search(chunk: Floats, fmt: BlockFormat, largest: Floats, rows_weight: Floats | None) -> _Encoded:
    """Return the best codes of a [blocks, rows, columns] chunk over the candidate column scales."""
    peak = np.maximum(chunk.max(axis=1), -chunk.min(axis=1))
    buffers = np.empty_like(chunk), np.empty_like(chunk)
    columns = chunk.shape[2]
    least = np.full(columns, np.inf, np.float32)
    best_scale = np.zeros(columns, np.float16)
    best_exponents = np.zeros(peak.shape, np.uint8)
    for fraction in _candidates(fmt):
        scale16 = _float16(largest * np.float32(2.0**-fraction))
        scale = scale16.astype(np.float32)
        exponents, error = _best_exponents(chunk, peak, scale, fmt, buffers, rows_weight)
        better = error < least
        least[better], best_scale[better] = error[better], scale16[better]
        best_exponents[:, better] = exponents[:, better]
    block_scale = exponent_scale(best_exponents, fmt) * best_scale.astype(np.float32)
    noise = _round(chunk, block_scale, fmt, *buffers).sum(dtype=np.float64)
    return _Encoded(buffers[1].astype(np.int8), best_exponents, best_scale, float(noise))


def _candidates(fmt: BlockFormat) -> NDArray[np.float64]:
    """Return how many octaves below the largest scale each candidate lies."""
    if fmt.powers:
        return np.zeros(1)
    if not fmt.max_exponent:
        return np.arange(SHIFT_CANDIDATES if fmt.bits <= WIDEST_CLIPPED else 1) / SHIFT_CANDIDATES
    count = SHIFT_CANDIDATES if fmt.steps == 1 else FINE_CANDIDATES
    return np.arange(count) / (count * fmt.steps)


def _best_exponents(
    chunk: Floats,
    peak: Floats,
    scale: Floats,
    fmt: BlockFormat,
    buffers: tuple[Floats, Floats],
    rows_weight: Floats | None,
) -> tuple[NDArray[np.uint8], Floats]:
    """Return each block's best exponent, [blocks, columns], and each column's squared error, [columns]."""
    octaves = np.log2(np.maximum(peak, TINY) / (scale * np.float32(fmt.high)))
    smallest = np.clip(np.ceil(octaves * fmt.steps), 0, fmt.max_exponent).astype(np.int8)
    exponents = smallest.astype(np.uint8)
    least = _round(chunk, exponent_scale(exponents, fmt) * scale, fmt, *buffers, rows_weight)
    for below in CLIPPED_STEPS[fmt.steps][1:] if fmt.max_exponent else ():
        lower = np.maximum(smallest - np.int8(below), 0).astype(np.uint8)
        error = _round(chunk, exponent_scale(lower, fmt) * scale, fmt, *buffers, rows_weight)
        better = error < least
        least[better], exponents[better] = error[better], lower[better]
    return exponents, least.sum(axis=0)


def _round(
    chunk: Floats,
    block_scale: Floats,
    fmt: BlockFormat,
    scaled: Floats,
    codes: Floats,
    rows_weight: Floats | None = None,
) -> Floats:
    """Leave the codes of `chunk / block_scale` in `codes` and return each block's squared error, [blocks, columns]."""
    np.multiply(chunk, (1 / block_scale)[:, None, :], out=scaled)
    np.rint(scaled, out=codes)
    np.clip(codes, fmt.low, fmt.high, out=codes)
    np.subtract(scaled, codes, out=scaled)
    np.multiply(scaled, scaled, out=scaled)
    total = scaled.sum(axis=1) if rows_weight is None else np.einsum("brn,br->bn", scaled, rows_weight)
    error: Floats = total * np.square(block_scale)
    return error
