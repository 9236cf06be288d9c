"""Products of two activations in integers: int8 on both sides, a scale per row of A and per column of B.

a [..., m, k] -- quantize along k -> qa uint8 around 128, scale [..., m, 1]
b [..., k, n] -- quantize along k -> qb int8,             scale [..., 1, n]
qa, qb -- MatMulInteger -- Cast -- Mul(scale of a) -- Mul(scale of b) -> [..., m, n]
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.editor import Emitter
from .operators import FLOAT, cast

# A row of zeros is divided by this, not by zero.
SMALLEST_PEAK = 1e-30
LARGEST_CODE = 127


def product_bound(k: int) -> float:
    """Return the largest error of an element, as a part of (largest |a| of its row) * (largest |b| of its column).

    Each factor errs by at most 1/254 of its peak: k * (1/254 + 1/254 + 1/254^2).
    """
    half = 0.5 / LARGEST_CODE
    return k * (2 * half + half * half)


def multiply_activations(at: Emitter, a: gs.Tensor, b: gs.Tensor, name: str, fused: bool) -> gs.Variable:
    """Write a [..., m, k] times b [..., k, n], both float32, within `product_bound(k)`; k up to rowwise.LONGEST_SUM.

    `fused`: with ONNX Runtime's MatMulIntegerToFloat, several times faster than the standard operators.
    """
    qa, scale_a = _quantize(at, a, -1, 128, np.uint8, f"{name}.a")
    qb, scale_b = _quantize(at, b, -2, 0, np.int8, f"{name}.b")
    zeros = at.constant(np.array(128, np.uint8), "zero_point"), at.constant(np.array(0, np.int8), "zero_point_int8")
    if fused:
        one = _number(at, 1, "one")
        product = at.op("MatMulIntegerToFloat", qa, qb, one, one, *zeros, name=f"{name}.steps", domain="com.microsoft")
    else:
        product = cast(at, at.op("MatMulInteger", qa, qb, *zeros, name=f"{name}.sums"), FLOAT, f"{name}.steps")
    product = at.op("Mul", product, scale_a, name=f"{name}.rows")
    return at.op("Mul", product, scale_b, name=f"{name}.product", dtype=np.float32)


def _quantize(
    at: Emitter, x: gs.Tensor, axis: int, zero: int, dtype: type[np.integer], name: str
) -> tuple[gs.Variable, gs.Variable]:
    axes = at.constant(np.array([axis], np.int64), f"axis{-axis}")
    size = at.op("Abs", x, name=f"{name}.abs")
    peak = at.op("ReduceMax", size, axes, name=f"{name}.peak", keepdims=1)
    peak = at.op("Max", peak, _number(at, SMALLEST_PEAK, "smallest_peak"), name=f"{name}.nonzero")
    scale = at.op("Mul", peak, _number(at, 1 / LARGEST_CODE, "1/127"), name=f"{name}.scale")
    steps = at.op("Div", x, scale, name=f"{name}.in_steps")
    point = at.constant(np.array(zero, dtype), f"zero{zero}")
    return at.op("QuantizeLinear", steps, _number(at, 1, "one"), point, name=f"{name}.q"), scale


def _number(at: Emitter, value: float, name: str) -> gs.Constant:
    return at.constant(np.array(value, np.float32), name)
