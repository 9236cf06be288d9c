"""BlockMatMul: rows of uint8 codes times a weight of int8 codes, in integers; a scale a row and a scale a column.

    q [..., k] -- MatMulIntegerToFloat(weight int8 [k, n], scale [n]) -- Mul(row_scale [..., 1]) -> y [..., n]

BlockMatMul2 to BlockMatMul7 decode the weight themselves, as DecodeBlocks does: the session folds that when it is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import decode_blocks
from .function import Function, compose

_BODY = """
        unit = Constant <value_float: float = @tensor_scale> ()
        column_scale = Cast <to = 1> (scale)
        point = Constant <value_int: int = @zero_point> ()
        zero = Cast <to = 2> (point)
        product = com.microsoft.MatMulIntegerToFloat (q, weight, unit, column_scale, zero)
        y = Mul (row_scale, product)"""


def reference(
    q: NDArray[np.uint8],
    row_scale: NDArray[np.float32],
    weight: NDArray[np.int8],
    scale: NDArray[np.floating],
    zero_point: int,
    tensor_scale: float = 1.0,
) -> NDArray[np.float32]:
    """Return the product [..., n] of codes: the sums are exact, and three factors each round once."""
    sums = (q.astype(np.int64) - zero_point) @ weight.astype(np.int64)
    # Whole numbers beyond 2^24 round to the nearest float, as the kernel's do.
    product = sums.astype(np.float32) * (np.float32(tensor_scale) * scale.astype(np.float32))
    return product * row_scale


# The weight is int8 already, or decoded elsewhere for several readers.
INT8 = Function(
    "BlockMatMul8",
    "q, row_scale, weight, scale",
    "y",
    _BODY,
    "Multiply quantized rows with an int8 weight: (q - zero_point) * row_scale times weight * scale",
)
BY_SUFFIX = {
    suffix: compose(INT8, "weight", decoding, f"BlockMatMul{suffix}", f"Multiply quantized rows, {suffix[0]}-bit codes")
    for suffix, decoding in decode_blocks.BY_SUFFIX.items()
}
