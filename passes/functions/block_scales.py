"""BlockScales: float scales of blocks from small exponents, half a byte or one each.

    exponents uint4 or uint8 -- Cast -- Mul(step) -- Pow(2, .) -- Mul(column_scale) -> float

A session computes it once, when it is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .function import Function


def reference(
    exponents: NDArray[np.uint8], scale: NDArray[np.floating], step: float, tensor_scale: float = 1.0
) -> NDArray[np.float32]:
    """Return 2^(exponents * step) * scale * tensor_scale: within two ulps of the runtime's, whose Pow is its own."""
    powers = np.exp2(exponents.astype(np.float32) * np.float32(step)).astype(np.float32)
    y: NDArray[np.float32] = powers * (scale.astype(np.float32) * np.float32(tensor_scale))
    return y


FUNCTION = Function(
    "BlockScales",
    "exponents, column_scale",
    "y",
    """
        octaves = Cast <to = 1> (exponents)
        part = Constant <value_float: float = @step> ()
        powers_of_two = Mul (octaves, part)
        two = Constant <value_float = 2.0> ()
        powers = Pow (two, powers_of_two)
        floats = Cast <to = 1> (column_scale)
        unit = Constant <value_float: float = @tensor_scale> ()
        scales = Mul (floats, unit)
        y = Mul (powers, scales)""",
    "Expand exponents to the float scales of blocks",
    axes="first",
)
