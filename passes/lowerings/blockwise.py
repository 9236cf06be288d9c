"""Blockwise dynamic quantization of an activation: codes of one type, a shift (power-of-two scale) per block.

    x [..., k] -- Flatten -> rows [r, k] -- Abs -- MaxPool(block) -> peaks [r, blocks]
    peaks -- Mul -- Mul -- Sub -> shifts [r, blocks]
    rows -- QuantizeLinear(shifts, block_size) -> codes [r, k] -- DequantizeLinear -- Reshape -> [..., k]

Blocks lie along the last axis, and the last of them may be short: nothing is padded and no width need be known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..graph.editor import Emitter
from ..graph.shapes import rank
from .operators import INT4, INT8

# A block whose largest value is smaller is divided by the shift of this; a larger one saturates at it.
SMALLEST_PEAK, LARGEST_PEAK = 1e-30, 1e30
# 1 - 2^-24: q - q * this is q's unit in the last place, or half of it where q is a power of two: 2^(ceil(log2 q) - 24)
# in both cases, exactly, where a logarithm would be off by one near powers of two.
BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


@dataclass(frozen=True)
class CodeType:
    """A type of codes.

    Attributes:
        onnx: its ONNX type.
        largest: the largest value on both sides of zero.
        bits: its width.
        bound: largest error of a value, as a part of the largest value of its block.
    """

    onnx: int
    largest: float
    bits: int
    bound: float


# A shift is below twice the block's peak / largest, and rounding to an integer errs by at most half a shift; rounding
# to E4M3's three bits behind the point by at most a sixteenth of the value.
CODE_TYPES = {
    "int8": CodeType(INT8, 127, 8, 1 / 127),
    "int4": CodeType(INT4, 7, 4, 1 / 7),
    "float8e4m3": CodeType(onnx.TensorProto.FLOAT8E4M3FN, 448, 8, 1 / 16),
}


def quantize_blocks(at: Emitter, x: gs.Tensor, code: CodeType, block: int, name: str) -> gs.Variable:
    """Write float32 x [..., k] as blockwise codes and back: [..., k].

    A value errs by at most `code.bound` of the largest magnitude of its block. Beyond LARGEST_PEAK, values saturate.
    """
    flat: gs.Tensor = x
    if rank(x) is None:
        # A single number is a block, too, where nothing tells that it has no axis.
        flat = at.op("Unsqueeze", x, at.constant(np.array([0], np.int64), "first_axis"), name=f"{name}.matrix")
    rows = at.op("Flatten", flat, name=f"{name}.rows", axis=-1)
    shifts = block_shifts(at, rows, code, block, name)
    codes = at.op(
        "QuantizeLinear", rows, shifts, name=f"{name}.codes", axis=1, block_size=block, output_dtype=code.onnx
    )
    decoded = at.op(
        "DequantizeLinear", codes, shifts, name=f"{name}.decoded", dtype=np.float32, axis=1, block_size=block
    )
    shape = at.op("Shape", x, name=f"{name}.shape", dtype=np.int64)
    return at.op("Reshape", decoded, shape, name=f"{name}.blocks", dtype=np.float32, allowzero=1)


def block_shifts(at: Emitter, rows: gs.Variable, code: CodeType, block: int, name: str) -> gs.Variable:
    """Write the smallest power of two, [r, blocks], that takes each block's peak to at most `code.largest`."""
    one = at.constant(np.array([1], np.int64), "one_axis")
    sizes = at.op("Unsqueeze", at.op("Abs", rows, name=f"{name}.abs"), one, name=f"{name}.sizes")
    peaks = at.op("MaxPool", sizes, name=f"{name}.pooled", kernel_shape=[block], strides=[block], ceil_mode=1)
    peaks = at.op("Squeeze", peaks, one, name=f"{name}.peaks")
    bounds = _number(at, SMALLEST_PEAK, "smallest_peak"), _number(at, LARGEST_PEAK, "largest_peak")
    peaks = at.op("Clip", peaks, *bounds, name=f"{name}.finite")
    scaled = at.op("Mul", peaks, _number(at, 2.0**24 / code.largest, "ulps"), name=f"{name}.ulps")
    below = at.op("Mul", scaled, _number(at, BELOW_ONE, "below_one"), name=f"{name}.below")
    return at.op("Sub", scaled, below, name=f"{name}.shifts", dtype=np.float32)


def _number(at: Emitter, value: float, name: str) -> gs.Constant:
    return at.constant(np.array(value, np.float32), name)
