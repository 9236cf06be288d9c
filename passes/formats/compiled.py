"""The compiled encoder, where there is one: the same codes as numpy's, to the bit, in a fraction of the time."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.int8]
Bytes = NDArray[np.uint8]

# Columns that the searches for scales work on at a time, and so the fewest that they take.
FEWEST = 16


class Table(NamedTuple):
    """What numbers cost and become in each of the four subsets of levels; the middle number is zero.

    Attributes:
        costs: uint16 [2 * numbers + 1, 4]: of numbers in blocks without a shift, in those with one, and of none.
        coded: int8 [numbers, 4, 2], a code and what it stands for.
    """

    costs: NDArray[np.uint16]
    coded: Codes


class Encoder:
    """The functions of a library, bct_onnx/kernels/src/encode.h; other threads of Python run meanwhile.

    Attributes:
        offered: the encoder that all formats use, or None where numpy has to do.
    """

    offered: ClassVar[Encoder | None] = None

    def __init__(self, path: str) -> None:
        """Load the library at `path`; raises OSError where it does not load, AttributeError where it is another."""
        library = ctypes.CDLL(path)
        self._encode_trellis = library.bct_encode_trellis
        self._expect_scales = library.bct_expect_scales
        self._try_scales = library.bct_try_scales
        self._round_codes = library.bct_round_codes

    def codes(self, values: Floats, per_unit: Floats, shifts: Bytes, table: Table, k: int) -> tuple[Codes, Codes]:
        """Return codes in a trellis and the numbers that they stand for, [rows, n]; only the first k rows count.

        `values` are [rows, n], `per_unit` [n] the numbers of the table in a unit of them, `shifts` [blocks, n].
        """
        rows, n = values.shape
        codes, stand_for = np.empty((rows, n), np.int8), np.empty((rows, n), np.int8)
        sizes = (rows, n, k, rows // max(len(shifts), 1), len(table.coded))
        _call(self._encode_trellis, sizes, (values, per_unit, shifts, *table), (codes, stand_for))
        return codes, stand_for

    def expected(
        self, values: Floats, furthest: Floats, constant: Floats, octave: int
    ) -> tuple[NDArray[np.int32], Bytes]:
        """Return which scale errs least, [n], counted from the one `octave` candidates below the first, and shifts.

        `values` are [blocks, rows, n]; `furthest` and `constant` [octave + candidates, n] are the largest number that
        is not clipped and the error to be expected of those that are not, by scale. Shifts, [blocks, n], are to the
        scale `octave` candidates before.
        """
        blocks, rows, n = values.shape
        best, shifts = np.empty(n, np.int32), np.empty((blocks, n), np.uint8)
        sizes = (blocks, rows, n, len(furthest) - octave, octave)
        _call(self._expect_scales, sizes, (values, furthest, constant), (best, shifts))
        return best, shifts

    def tried(self, values: Floats, scales: Floats, limits: Sequence[float], shifted: bool) -> tuple[Bytes, Floats]:
        """Return each block's best shift, [candidates, blocks, n], and columns' squared errors, [candidates, n].

        `values` are [blocks, rows, n], `scales` [candidates, n]; `limits` are the lowest and the highest code, and what
        a block's largest value is at least.
        """
        (blocks, rows, n), candidates = values.shape, len(scales)
        shifts, errors = np.empty((candidates, blocks, n), np.uint8), np.empty((candidates, n), np.float32)
        sizes = (blocks, rows, n, candidates, int(shifted))
        _call(self._try_scales, sizes, (values, scales), (shifts, errors), limits)
        return shifts, errors

    def rounded(self, values: Floats, per_unit: Floats, limits: Sequence[float], codes: Floats) -> Floats:
        """Leave in `codes` those of `values * per_unit`, both [blocks, rows, n]; return squared errors, [blocks, n].

        `per_unit` are [blocks, n], `limits` the lowest and the highest code.
        """
        errors = np.empty(per_unit.shape, np.float32)
        _call(self._round_codes, values.shape, (values, per_unit), (codes, errors), limits)
        return errors


def _call(
    function: Any,
    sizes: Sequence[int],
    read: Sequence[NDArray[Any]],
    written: Sequence[NDArray[Any]],
    limits: Sequence[float] = (),
) -> None:
    """Call a function with a record of sizes, arrays that it reads, C-contiguous ones that it writes, and numbers."""
    arrays = [*map(np.ascontiguousarray, read), *written]
    record = _record(len(sizes), len(arrays), len(limits))(*sizes, *(array.ctypes.data for array in arrays), *limits)
    if function(ctypes.byref(record)):
        raise MemoryError("no memory to encode a weight in")


@cache
def _record(sizes: int, arrays: int, limits: int) -> type[ctypes.Structure]:
    """Return the type of a record with so many fields of each kind, in this order."""
    kinds = [ctypes.c_int64] * sizes + [ctypes.c_void_p] * arrays + [ctypes.c_float] * limits
    fields = [(f"field{place}", kind) for place, kind in enumerate(kinds)]
    return type("Record", (ctypes.Structure,), {"_fields_": fields})
