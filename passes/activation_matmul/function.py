"""IntegerMatMul: products of two activations in integers: int8 on both sides, a scale per row of A and column of B.

    a [..., m, k] -- quantize along k -> qa uint8 around 128, scale [..., m, 1]
    b [..., k, n] -- quantize along k -> qb int8,             scale [..., 1, n]
    qa, qb -- MatMulIntegerToFloat -- Mul(scale of a) -- Mul(scale of b) -> y [..., m, n]

IntegerMatMulStandard does it in standard operators (MatMulInteger, Cast), several times slower in ONNX Runtime.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..functions.function import Function

# A row of zeros is divided by this, not by zero.
SMALLEST_PEAK = 1e-30
LARGEST_CODE = 127


def bound(k: int) -> float:
    """Return the largest error of an element, as a part of (largest |a| of its row) * (largest |b| of its column).

    Each factor errs by at most 1/254 of its peak: k * (1/254 + 1/254 + 1/254^2). Sums are exact up to
    quantize_rows.LONGEST_SUM.
    """
    half = 0.5 / LARGEST_CODE
    return k * (2 * half + half * half)


def reference(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the product [..., m, n], within `bound(k)`: integer sums are exact, two factors each round once."""
    codes, scales = zip(*(_quantize(x, axis) for x, axis in ((a, -1), (b, -2))), strict=True)
    y: NDArray[np.float32] = (codes[0] @ codes[1]).astype(np.float32) * scales[0] * scales[1]
    return y


def _quantize(x: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    peak = np.maximum(np.abs(x).max(axis, keepdims=True), np.float32(SMALLEST_PEAK))
    scale = peak * np.float32(1 / LARGEST_CODE)
    return np.rint(x / scale).astype(np.int64), scale


def _body(product: str) -> str:
    sides = "".join(
        f"""
        axis_{x} = Constant <value_ints = [{axis}]> ()
        size_{x} = Abs ({x})
        largest_{x} = ReduceMax <keepdims = 1> (size_{x}, axis_{x})
        peak_{x} = Max (largest_{x}, smallest)
        scale_{x} = Mul (peak_{x}, part)
        steps_{x} = Div ({x}, scale_{x})
        zero_{x} = Constant <value = {zero}> ()
        q{x} = QuantizeLinear (steps_{x}, one, zero_{x})"""
        for x, axis, zero in (("a", -1, "uint8 {128}"), ("b", -2, "int8 {0}"))
    )
    return f"""
        smallest = Constant <value_float = {SMALLEST_PEAK!r}> ()
        part = Constant <value_float = {1 / LARGEST_CODE!r}> ()
        one = Constant <value_float = 1.0> ()
        {sides}
        {product}
        rows = Mul (product, scale_a)
        y = Mul (rows, scale_b)"""


FUSED = Function(
    "IntegerMatMul",
    "a, b",
    "y",
    _body("product = com.microsoft.MatMulIntegerToFloat (qa, qb, one, one, zero_a, zero_b)"),
    "Multiply two activations as int8 codes, a scale per row of a and per column of b",
)
STANDARD = Function(
    "IntegerMatMulStandard",
    "a, b",
    "y",
    _body("sums = MatMulInteger (qa, qb, zero_a, zero_b) product = Cast <to = 1> (sums)"),
    FUSED.summary,
)
