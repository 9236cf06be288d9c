"""Row-wise dynamic int8 quantization of an activation: tokens do not disturb each other.

    x [..., k] -- Abs -- ReduceMax -- Max(tiny) -- Mul(1/127) -> scale [..., 1]
    x -- Div(scale) -- QuantizeLinear(1, zero point 128) -> q [..., k] uint8

An element errs by at most half its row's scale, max|x| / 254.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.editor import Emitter
from .operators import reduce_max

# A row of zeros is divided by this, not by zero.
SMALLEST_PEAK = np.float32(1e-30)


class Rows(NamedTuple):
    """A row-wise quantized activation: (q - 128) * scale."""

    q: gs.Variable
    scale: gs.Variable


def quantize_rows(at: Emitter, x: gs.Tensor, name: str) -> Rows:
    """Write the quantization of a float activation over its last axis."""
    size = at.op("Abs", x, name=f"{name}.abs")
    peak = reduce_max(at, size, f"{name}.peak")
    peak = at.op("Max", peak, at.constant(np.array(SMALLEST_PEAK), "smallest_peak"), name=f"{name}.nonzero")
    scale = at.op("Mul", peak, at.constant(np.array(1 / 127, np.float32), "1/127"), name=f"{name}.scale")
    steps = at.op("Div", x, scale, name=f"{name}.steps")
    q = at.op("QuantizeLinear", steps, one(at), zero_point(at), name=f"{name}.q")
    return Rows(q, scale)


def one(at: Emitter) -> gs.Constant:
    """Return the scale 1."""
    return at.constant(np.array(1, np.float32), "one")


def zero_point(at: Emitter) -> gs.Constant:
    """Return the zero point of a row-wise activation; uint8 around 128 is the form the fast kernel takes."""
    return at.constant(np.array(128, np.uint8), "zero_point")
