"""BothMatMul: one weight in two forms, of which the number of rows chooses: int8 for many, packed codes for few.

    many -- If: x [..., k] -- quantize rows -- MatMulIntegerToFloat(weight int8 [k, n]) -- Mul(row scale) +
            x [..., k] -- MatMulNBits(codes uint8 [n, blocks, block bytes], scale [n, blocks]) -----------+-> y [..., n]

Weights come from outside of the branches: a session decodes and arranges each once.
"""

from __future__ import annotations

from functools import partial

from .function import Function
from .quantize_rows import inside


def _body(opset: int, above: bool, blockwise: bool) -> str:
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
                > (x, packed, block_scale)
            }}
        >"""


def _function(above: bool, blockwise: bool) -> Function:
    return Function(
        f"BothMatMul{'Above' if above else ''}{'' if blockwise else 'ByDivision'}",
        "x, many, weight, column_scale, codes, block_scale",
        "y",
        partial(_body, above=above, blockwise=blockwise),
        "Multiply many rows with an int8 weight, few with its packed codes",
    )


# Whether x has a floor, and whether its axes allow for blockwise QuantizeLinear, see quantize_rows.
BY_ROWS = {(above, blockwise): _function(above, blockwise) for above in (False, True) for blockwise in (False, True)}
