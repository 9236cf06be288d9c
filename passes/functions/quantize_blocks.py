"""CodeBlocks: an activation as blockwise codes and back: codes of one type, a shift (power-of-two scale) per block.

    x [..., k] -- Flatten -> rows [r, k] -- Abs -- MaxPool(block) -> peaks [r, blocks]
    peaks -- Mul -- Mul -- Sub -> shifts [r, blocks]
    rows -- QuantizeLinear(shifts, block_size) -> codes [r, k] -- DequantizeLinear -- Reshape -> y [..., k]

Blocks lie along the last axis, and the last of them may be short: nothing is padded and no width need be known.
CodeBlocksAnyRank takes single numbers, too: a number is a block where nothing tells that it has no axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from .function import Function

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

    @property
    def ulps(self) -> float:
        """What a block's peak is multiplied with, so that the place of its last digit is its shift."""
        return 2.0**24 / self.largest


# A shift is below twice the block's peak / largest, and rounding to an integer errs by at most half a shift; rounding
# to E4M3's three bits behind the point by at most a sixteenth of the value.
CODE_TYPES = {
    "int8": CodeType(onnx.TensorProto.INT8, 127, 8, 1 / 127),
    "int4": CodeType(onnx.TensorProto.INT4, 7, 4, 1 / 7),
    "float8e4m3": CodeType(onnx.TensorProto.FLOAT8E4M3FN, 448, 8, 1 / 16),
}
# Makes `shifts` [r, blocks] of `rows` [r, k]: the smallest powers of two that take a block's peak to at most `largest`.
SHIFTS = f"""
        second = Constant <value_ints = [1]> ()
        magnitudes = Abs (rows)
        sizes = Unsqueeze (magnitudes, second)
        pooled = MaxPool <kernel_shape: ints = @block, strides: ints = @block, ceil_mode = 1> (sizes)
        peaks = Squeeze (pooled, second)
        smallest = Constant <value_float = {SMALLEST_PEAK!r}> ()
        largest = Constant <value_float = {LARGEST_PEAK!r}> ()
        finite = Clip (peaks, smallest, largest)
        places = Constant <value_float: float = @ulps> ()
        scaled = Mul (finite, places)
        almost_one = Constant <value_float = {BELOW_ONE!r}> ()
        below = Mul (scaled, almost_one)
        shifts = Sub (scaled, below)"""


def block_shifts(rows: NDArray[np.float32], code: CodeType, block: int) -> NDArray[np.float32]:
    """Return the shifts [r, blocks] of rows [r, k]: exact."""
    padded = np.pad(np.abs(rows), [(0, 0), (0, -rows.shape[1] % block)])
    peaks = padded.reshape(len(rows), -1, block).max(-1)
    scaled = np.clip(peaks, np.float32(SMALLEST_PEAK), np.float32(LARGEST_PEAK)) * np.float32(code.ulps)
    shifts: NDArray[np.float32] = scaled - scaled * np.float32(BELOW_ONE)
    return shifts


def reference(x: NDArray[np.float32], code: CodeType, block: int) -> NDArray[np.float32]:
    """Return the decoded codes [..., k], finite x; int types only.

    A value errs by at most `code.bound` of the largest magnitude of its block. Beyond LARGEST_PEAK, values saturate.
    """
    rows = x.reshape(-1, x.shape[-1])
    shifts = np.repeat(block_shifts(rows, code, block), block, -1)[:, : rows.shape[1]]
    codes = np.clip(np.rint(rows / shifts), -code.largest - 1, code.largest)
    y: NDArray[np.float32] = (codes.astype(np.float32) * shifts).reshape(x.shape)
    return y


def _body(first_axis: str) -> str:
    return f"""
        {first_axis}
        rows = Flatten <axis = -1> (flat)
        {SHIFTS}
        codes = QuantizeLinear <axis = 1, block_size: int = @block_size, output_dtype: int = @output_dtype> (
            rows, shifts
        )
        decoded = DequantizeLinear <axis = 1, block_size: int = @block_size> (codes, shifts)
        shape = Shape (x)
        y = Reshape <allowzero = 1> (decoded, shape)"""


_SUMMARY = "Blockwise codes of x, a power-of-two scale a block, and back"
KNOWN = Function("CodeBlocks", "x", "y", _body("flat = Identity (x)"), _SUMMARY)
ANY_RANK = Function(
    "CodeBlocksAnyRank",
    "x",
    "y",
    _body("first = Constant <value_ints = [0]> () flat = Unsqueeze (x, first)"),
    _SUMMARY,
)
