"""BothMatMul: one weight in two forms, of which the number of rows chooses: int8 for many, packed codes for few.

    codes uint8 [n, blocks, block bytes], multiples [n, blocks] -- DecodeMultiples -- Slice -> int8 [k, n]
                                                                -- MultipleScales -> scale [n, blocks]
    many -- If: x [..., k] -- quantize rows -- MatMulIntegerToFloat(int8) -- Mul(row scale) +
            x [..., k] -- MatMulNBits(codes, scale) ----------------------------------------+-> y [..., n]

BothMatMul8 has codes of a byte: DecodeBytes and ColumnScales in the place of the two. BothMatMulOffset4 has zero points
of blocks, too, uint8 [n, blocks / 2] as MatMulNBits has them: DecodeOffsets. BothMatMulTable is given int8 rows [n, k],
decoded elsewhere for whoever looks rows up, too: Transpose, and TableBytes. A session decodes and arranges each form
once, outside of the branches.
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
OFFSETS = (decode_multiples.OFFSETS, decode_multiples.MULTIPLE_SCALES)
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


def _body(opset: int, inner: tuple[Function, Function], above: bool, blockwise: bool) -> str:
    decode, scales = inner
    return f"""
        matrix = {call(decode)}
        block_scale = {call(scales)}
        begin = Constant <value_ints = [0]> ()
        end = Constant <value_ints: ints = @depth> ()
        weight = Slice (matrix, begin, end, begin)
        {_branches(opset, above, blockwise, ", zero_points" if decode is decode_multiples.OFFSETS else "")}"""


def _table_body(opset: int, above: bool, blockwise: bool) -> str:
    return f"""
        weight = Transpose <perm = [1, 0]> (table)
        codes = {call(decode_multiples.TABLE_BYTES)}
        block_scale = {call(decode_multiples.COLUMN_SCALES)}
        {_branches(opset, above, blockwise)}"""


def _ending(above: bool, blockwise: bool) -> str:
    return f"{'Above' if above else ''}{'' if blockwise else 'ByDivision'}"


_SUMMARY = "Multiply many rows with an int8 weight, few with its packed codes"


def _function(name: str, inner: tuple[Function, Function], above: bool, blockwise: bool) -> Function:
    return Function(
        f"BothMatMul{name}{_ending(above, blockwise)}",
        f"x, many, {inner[0].inputs}, column_scale",
        "y",
        partial(_body, inner=inner, above=above, blockwise=blockwise),
        _SUMMARY,
        calls=inner,
    )


def _table(above: bool, blockwise: bool) -> Function:
    return Function(
        f"BothMatMulTable{_ending(above, blockwise)}",
        "x, many, table, column_scale",
        "y",
        partial(_table_body, above=above, blockwise=blockwise),
        "Multiply many rows with the int8 rows of a table, few with its bytes",
        calls=(decode_multiples.TABLE_BYTES, decode_multiples.COLUMN_SCALES),
    )


# By width, whether x has a floor, and whether its axes allow for blockwise QuantizeLinear, see quantize_rows.
BY_ROWS = {
    (bits, above, blockwise): _function(f"{bits}", BYTES if bits == nbits.BYTE else MULTIPLES, above, blockwise)
    for bits, above, blockwise in product(nbits.WIDTHS, (False, True), (False, True))
}
# By the last two.
OFFSET = {key: _function("Offset4", OFFSETS, *key) for key in product((False, True), (False, True))}
TABLE = {key: _table(*key) for key in product((False, True), (False, True))}
