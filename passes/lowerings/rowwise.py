"""Row-wise dynamic int8 quantization of an activation: tokens do not disturb each other.

    x [..., k] -- ReduceMax, -ReduceMin, tiny -- Max -- Mul(1/127) -> scale [..., 1]
    x -- QuantizeLinear(scale, zero point 128, block_size k) -> q [..., k] uint8

An element errs by at most half its row's scale, max|x| / 254. Two reductions are cheaper than Abs and one, and a
blockwise QuantizeLinear with the row as its block than Div and a scalar one: it needs opset 21. Below, Div takes its
place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.editor import Emitter
from .operators import OPSET_INT4, reduce_last

# A row of zeros is divided by this, not by zero.
SMALLEST_PEAK = 1e-30
# Larger than every scale: what is quantized with it is zero.
HUGE = 1e38


class Rows(NamedTuple):
    """A row-wise quantized activation: (q - 128) * scale."""

    q: gs.Variable
    scale: gs.Variable


def quantize_rows(at: Emitter, x: gs.Tensor, k: int, name: str) -> Rows:
    """Write the quantization of a float activation [..., k] over its last axis."""
    highest = reduce_last(at, "ReduceMax", x, f"{name}.max")
    lowest = at.op("Neg", reduce_last(at, "ReduceMin", x, f"{name}.min"), name=f"{name}.depth")
    peak = at.op("Max", highest, lowest, _number(at, SMALLEST_PEAK, "smallest_peak"), name=f"{name}.peak")
    scale = at.op("Mul", peak, _number(at, 1 / 127, "1/127"), name=f"{name}.scale")
    if at.opset < OPSET_INT4:
        steps = at.op("Div", x, scale, name=f"{name}.steps")
        return Rows(at.op("QuantizeLinear", steps, _number(at, 1, "one"), zero_point(at), name=f"{name}.q"), scale)
    # One zero point a row, all of them 128: QuantizeLinear wants as many as it has scales.
    zeros = at.op("QuantizeLinear", scale, _number(at, HUGE, "huge"), zero_point(at), name=f"{name}.zeros")
    q = at.op("QuantizeLinear", x, scale, zeros, name=f"{name}.q", axis=-1, block_size=k)
    return Rows(q, scale)


def zero_point(at: Emitter) -> gs.Constant:
    """Return the zero point of a row-wise activation; uint8 around 128 is the form the fast kernel takes."""
    return at.constant(np.array(128, np.uint8), "zero_point")


def _number(at: Emitter, value: float, name: str) -> gs.Constant:
    return at.constant(np.array(value, np.float32), name)
