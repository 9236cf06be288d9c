"""BlockGather: rows of a table of int8 codes with a scale a row, looked up and decoded.

    indices [...] -- Gather(table int8 [rows, k]) -- Cast -- Mul(Gather(scale [rows])) -> y [..., k]

BlockGather2 to BlockGather7 decode the table themselves, as DecodeBlocks does: the session folds that when it is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import decode_blocks
from .function import Function, compose

_BODY = """
        codes = Gather <axis = 0> (table, indices)
        steps = Cast <to = 1> (codes)
        row_scale = Cast <to = 1> (scale)
        column_shape = Constant <value_ints = [-1, 1]> ()
        column = Reshape (row_scale, column_shape)
        unit = Constant <value_float: float = @tensor_scale> ()
        scales = Mul (column, unit)
        factor = Gather <axis = 0> (scales, indices)
        y = Mul (steps, factor)"""


def reference(
    table: NDArray[np.int8], scale: NDArray[np.floating], indices: NDArray[np.integer], tensor_scale: float = 1.0
) -> NDArray[np.float32]:
    """Return the decoded rows, [..., k]: exact but for one rounding a factor."""
    factor = (scale.astype(np.float32) * np.float32(tensor_scale))[indices]
    y: NDArray[np.float32] = table[indices].astype(np.float32) * factor[..., None]
    return y


# The table is int8 already, or decoded elsewhere for several readers.
INT8 = Function(
    "BlockGather8",
    "table, scale, indices",
    "y",
    _BODY,
    "Look up rows of an int8 table: table[indices] * scale[indices]",
    axes="picked",
)
BY_SUFFIX = {
    suffix: compose(INT8, "table", decoding, f"BlockGather{suffix}", f"Look up rows of {suffix[0]}-bit codes")
    for suffix, decoding in decode_blocks.BY_SUFFIX.items()
}
