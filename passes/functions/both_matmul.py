"""BothMatMul: one weight in two forms, of which the number of rows chooses: int8 for many, packed codes for few.

    many -- If: x [..., k] -- quantize rows -- MatMulIntegerToFloat(weight int8 [k, n]) -- Mul(row scale) +
            x [..., k] -- MatMulNBits(codes uint8 [n, blocks, block bytes], scale [n, blocks]) -----------+-> y [..., n]

BothMatMulOffset... have zero points of blocks, uint8 [n, blocks / 2], for the packed form, as MatMulNBits has them.

Weights come from outside of the branches: a session decodes and arranges each once.
"""

from __future__ import annotations

from functools import partial
from itertools import product

from .function import Function
from .quantize_rows import inside


def _body(opset: int, above: bool, blockwise: bool, offset: bool) -> str:
    return f"""
        packed = Identity (codes)
        y = If (many) <
            then_branch = rows () => (float[] product) {{
                {inside(opset, above, blockwise, "K")}
                unit = Constant <value_float: float = @tensor_scale> ()
                columns = Cast <to = 1> (column_scale)
                sums = com.microsoft.MatMulIntegerToFloat (q, weight, unit, columns, zero)
                product = Mul (sums, scale)
            }},
            else_branch = row () => (float[] packed_product) {{
                packed_product = com.microsoft.MatMulNBits <
                    K: int = @K, N: int = @N, bits: int = @bits, block_size: int = @block_size, accuracy_level = 4
                > (x, packed, block_scale{", zero_points" if offset else ""})
            }}
        >"""


def _function(above: bool, blockwise: bool, offset: bool) -> Function:
    return Function(
        f"BothMatMul{'Offset' if offset else ''}{'Above' if above else ''}{'' if blockwise else 'ByDivision'}",
        f"x, many, weight, column_scale, codes, block_scale{', zero_points' if offset else ''}",
        "y",
        partial(_body, above=above, blockwise=blockwise, offset=offset),
        "Multiply many rows with an int8 weight, few with its packed codes",
    )


# Whether x has a floor, whether its axes allow for blockwise QuantizeLinear, see quantize_rows, and whether there are
# zero points.
BY_ROWS = {key: _function(*key) for key in product((False, True), repeat=3)}
