"""BothMatMul: one weight in two forms, of which the number of rows chooses: int8 for many, packed codes for few.

    codes uint8 [n, blocks, block bytes], multiples [n, blocks] -- DecodeMultiples -- Slice -> int8 [k, n]
                                                                -- MultipleScales -> scale [n, blocks]
    many -- If: x [..., k] -- quantize rows -- MatMulIntegerToFloat(int8) -- Mul(row scale) +
            x [..., k] -- MatMulNBits(codes, scale) ----------------------------------------+-> y [..., n]

BothMatMul8 has codes of a byte: DecodeBytes and ColumnScales in the place of the two. BothMatMulOffset... have zero
points of blocks, uint8 [n, blocks / 2], for the packed form, as MatMulNBits has them; their int8 weight and scales are
inputs. So are those of BothMatMulDecoded..., and its codes, bytes that are decoded of others. A session decodes and
arranges each form once, outside of the branches.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from . import decode_multiples, nbits, quantize_rows
from .function import Function, call
from .quantize_rows import inside

MULTIPLES = (decode_multiples.MULTIPLES, decode_multiples.MULTIPLE_SCALES)
BYTES = (decode_multiples.BYTES, decode_multiples.COLUMN_SCALES)


def reference(
    x: NDArray[np.float32], weight: NDArray[np.int8], scale: NDArray[np.float32], floor: float | None = None
) -> NDArray[np.float32]:
    """Return many rows [..., k] times int8 [k, n] and scales [n]: sums are exact, two factors round once each.

    Few rows are what `nbits` says.
    """
    q, row_scale = quantize_rows.reference(x, floor)
    sums = (q.astype(np.int64) - quantize_rows.zero_point(floor)) @ weight.astype(np.int64)
    y: NDArray[np.float32] = sums.astype(np.float32) * scale * row_scale
    return y


def _branches(opset: int, above: bool, blockwise: bool, zero_points: str = "") -> str:
    return f"""
        packed = Identity (codes)
        y = If (many) <
            then_branch = rows () => (float[] product) {{
                {inside(opset, above, blockwise, "K")}
                one_tensor = Constant <value_float: float = @tensor_scale> ()
                columns = Cast <to = 1> (column_scale)
                sums = com.microsoft.MatMulIntegerToFloat (q, weight, one_tensor, columns, zero)
                product = Mul (sums, scale)
            }},
            else_branch = row () => (float[] packed_product) {{
                packed_product = com.microsoft.MatMulNBits <
                    K: int = @K, N: int = @N, bits: int = @bits, block_size: int = @block_size, accuracy_level = 4
                > (x, packed, block_scale{zero_points})
            }}
        >"""


def _body(opset: int, bits: int, above: bool, blockwise: bool) -> str:
    decode, scales = BYTES if bits == nbits.BYTE else MULTIPLES
    return f"""
        matrix = {call(decode)}
        block_scale = {call(scales)}
        begin = Constant <value_ints = [0]> ()
        end = Constant <value_ints: ints = @depth> ()
        weight = Slice (matrix, begin, end, begin)
        {_branches(opset, above, blockwise)}"""


def _ending(above: bool, blockwise: bool) -> str:
    return f"{'Above' if above else ''}{'' if blockwise else 'ByDivision'}"


_SUMMARY = "Multiply many rows with an int8 weight, few with its packed codes"


def _function(bits: int, above: bool, blockwise: bool) -> Function:
    inner = BYTES if bits == nbits.BYTE else MULTIPLES
    return Function(
        f"BothMatMul{bits}{_ending(above, blockwise)}",
        f"x, many, {inner[0].inputs}, column_scale",
        "y",
        partial(_body, bits=bits, above=above, blockwise=blockwise),
        _SUMMARY,
        calls=inner,
    )


def _offset(above: bool, blockwise: bool) -> Function:
    return Function(
        f"BothMatMulOffset{_ending(above, blockwise)}",
        "x, many, weight, column_scale, codes, block_scale, zero_points",
        "y",
        partial(_branches, above=above, blockwise=blockwise, zero_points=", zero_points"),
        _SUMMARY,
    )


def _decoded(above: bool, blockwise: bool) -> Function:
    return Function(
        f"BothMatMulDecoded{_ending(above, blockwise)}",
        "x, many, weight, column_scale, codes, block_scale",
        "y",
        partial(_branches, above=above, blockwise=blockwise),
        _SUMMARY,
    )


# By width, whether x has a floor, and whether its axes allow for blockwise QuantizeLinear, see quantize_rows.
BY_ROWS = {key: _function(*key) for key in product(nbits.WIDTHS, (False, True), (False, True))}
# By the last two.
OFFSET = {key: _offset(*key) for key in product((False, True), (False, True))}
DECODED = {key: _decoded(*key) for key in product((False, True), (False, True))}
