"""DecodeBlocks: codes of 2 to 7 bits as the file has them, and a shift of 0 or 1 a block, to int8.

    codes in planes -- unpack (as Unpack) -> uint8 [*codes]      shifts, a bit each, uint8 [1, bytes] -- uint8 [*shifts]
    codes << shifts -- Cast -- Reshape -> y int8 [*matrix]

A session computes it once, when it is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .function import Function
from .lanes import lanes
from .unpack import PACKINGS

# `count` of a call whose bytes hold nothing but shifts: the session takes the Slice away.
ALL = 2**63 - 1


def reference(codes: NDArray[np.int8], shifts: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.int8]:
    """Return codes << shifts, which broadcast and fit an int8, in another shape: exact."""
    return (codes.astype(np.int16) << shifts).astype(np.int8).reshape(matrix)


# Makes `by`, uint8 [*shifts], of bits in lanes.
SHIFTS = f"""
        {lanes("shifts", "bits", 1)}
        flat_shape = Constant <value_ints = [-1]> ()
        flat = Reshape (bits, flat_shape)
        start = Constant <value_ints = [0]> ()
        count = Constant <value_ints: ints = @count> ()
        counted = Slice (flat, start, count)
        shifts_shape = Constant <value_ints: ints = @shifts> ()
        by = Reshape (counted, shifts_shape)"""
_BODY = f"""
        {SHIFTS}
        shifted = BitShift <direction = "LEFT"> (codes, by)
        int8 = Cast <to = 3> (shifted)
        matrix_shape = Constant <value_ints: ints = @matrix> ()
        y = Reshape (int8, matrix_shape)"""
BY_SUFFIX = {
    suffix: Function(
        f"DecodeBlocks{suffix}",
        f"shifts, {packing.inputs}",
        "y",
        packing.body("codes") + _BODY,
        f"Decode {packing.bits}-bit codes with a shift a block to int8",
        dtypes=(np.int8,),
        axes="matrix",
    )
    for suffix, packing in PACKINGS.items()
}
