"""DequantizeBlocks: a constant that nothing multiplies in integers: codes in the file, floats in memory.

    codes int8 [*codes] (or their planes, as in Unpack) -- Cast -- Mul(BlockScales) -- Reshape -> y float [*matrix]

A session computes it once, when it is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .block_scales import FUNCTION as BLOCK_SCALES
from .function import Function, call
from .unpack import BY_SUFFIX as UNPACK
from .unpack import PLAIN


def reference(
    codes: NDArray[np.int8], block_scale: NDArray[np.float32], matrix: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return codes * block_scale, which broadcast, in another shape: each number rounds once."""
    return (codes.astype(np.float32) * block_scale).reshape(matrix)


_BODY = f"""
        block_scale = {call(BLOCK_SCALES)}
        steps = Cast <to = 1> (codes)
        blocks = Mul (steps, block_scale)
        matrix_shape = Constant <value_ints: ints = @matrix> ()
        y = Reshape (blocks, matrix_shape)"""
_SUMMARY = "Decode {}-bit codes with a scale a block to floats"
WHOLE = Function(
    "DequantizeBlocks8",
    "exponents, column_scale, codes",
    "y",
    _BODY,
    _SUMMARY.format(8),
    axes="matrix",
    calls=(BLOCK_SCALES,),
)
BY_SUFFIX = {
    suffix: Function(
        f"DequantizeBlocks{suffix}",
        f"exponents, column_scale, {unpack.inputs}",
        "y",
        f"codes = {call(unpack)} {_BODY}",
        _SUMMARY.format(suffix[0]),
        axes="matrix",
        calls=(unpack, BLOCK_SCALES),
    )
    for suffix, unpack in UNPACK.items()
    if suffix in PLAIN
}
