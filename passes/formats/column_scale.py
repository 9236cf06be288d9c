"""The scale of a column as the file has it: float16, or float32 where columns differ by too much."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .threads import even_width, over_ranges

Floats = NDArray[np.float32]

# Smallest normal float32: scale of a column of zeros.
TINY = float(np.finfo(np.float32).tiny)
# Smallest scale in float16, and the smallest with all its bits: below that, scales are float32.
SMALLEST_SCALE, SMALLEST_WHOLE_SCALE = np.float16(2**-24), 2.0**-14
# Elements of a part that is only read once, and columns of one at least.
READ_ELEMENTS, READ_COLUMNS = 1 << 20, 384


def largest_of_columns(weight: NDArray[np.floating], workers: int) -> Floats:
    """Return the largest magnitude in each column of a [k, n] weight, [n]."""
    k, n = weight.shape
    peak = np.empty(n, np.float32)

    def read(columns: slice) -> None:
        part = weight[:, columns]
        peak[columns] = np.maximum(part.max(axis=0, initial=0), -part.min(axis=0, initial=0))

    over_ranges(read, n, even_width(n, max(READ_COLUMNS, READ_ELEMENTS // max(k, 1))), workers)
    return peak


def kind_of(scale: Floats, counts: NDArray[np.bool_]) -> type[np.floating]:
    """Return the type of scales, [n], of which those that are not `counts` stand for zeros."""
    return np.float32 if np.any(scale < SMALLEST_WHOLE_SCALE, where=counts) else np.float16


def rounded(scale: Floats, kind: type[np.floating]) -> NDArray[np.floating]:
    """Round scales to float16, if that is the kind, up where rounding down to so few bits would clip half a code."""
    if kind is np.float32:
        return scale
    found = np.maximum(scale.astype(np.float16), SMALLEST_SCALE)
    return np.where(found < scale * np.float32(1 - 2**-10), np.nextafter(found, np.float16(np.inf)), found)
