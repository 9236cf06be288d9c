"""Gelu and its kin by table: an 8-bit code of |x| in, one of 256 integers out.

    function(x) = max(x, 0) - g(|x|)       g(a) = a - function(a): small, 0 at 0 and far from it, the same on both sides

    x -- Abs -- QuantizeLinear(step) -> index uint8 -- Cast -- Gather(table) -> uint8 -- DequantizeLinear --+
    x -- Relu ------------------------------------------------------------------------------------------- Sub -> y

Large inputs pass through: x far above zero, 0 far below. Zero stays zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..graph.editor import Emitter
from ..patterns.activation import FUNCTIONS
from .operators import cast

# The last code stands for everything beyond the table's range, where the table says 0.
LAST = 255


@dataclass(frozen=True)
class FunctionTable:
    """A function's distance from max(x, 0), by codes.

    Attributes:
        step: |x| of one input code.
        codes: uint8 [256], the distance in units of `unit`.
        unit: value of one output code.
        bound: largest error of the function for any x, infinities included, without float32's own rounding.
    """

    step: np.float32
    codes: NDArray[np.uint8]
    unit: np.float32
    bound: float


@lru_cache
def function_table(kind: str) -> FunctionTable:
    """Return the table of one of `patterns.activation.FUNCTIONS` with the range that makes the bound least.

    Inside the range an input is off by at most half a step, so g is by at most half a step times its steepest slope,
    and half an output unit. Beyond, it is what is left of g.
    """
    a = np.linspace(0, 16, 1 << 14)
    g = a - FUNCTIONS[kind](a)
    slope = float(np.abs(np.diff(g)).max() / a[1])
    # Past its peak g falls: the tail is worst where the last code begins.
    inside, tail = slope * a / (2 * LAST), np.interp(a * (1 - 0.5 / LAST), a, g)
    tail[: int(g.argmax())] = np.inf
    best = int(np.maximum(inside, tail).argmin())
    step, unit = np.float32(a[best] / LAST), np.float32(g.max() / LAST)
    centers = np.arange(LAST + 1) * np.float64(step)
    codes = np.rint((centers - FUNCTIONS[kind](centers)) / unit).astype(np.uint8)
    codes[LAST] = 0
    return FunctionTable(step, codes, unit, float(max(inside[best] + unit / 2, tail[best])))


def apply_table(at: Emitter, x: gs.Tensor, kind: str, name: str) -> gs.Variable:
    """Write a function of float32 x; the error is at most `function_table(kind).bound`."""
    table = function_table(kind)
    zero = at.constant(np.array(0, np.uint8), "zero_code")
    step, unit = (at.constant(np.array(v), f"{kind}.{n}") for v, n in ((table.step, "step"), (table.unit, "unit")))
    size = at.op("Abs", x, name=f"{name}.abs", dtype=np.float32)
    code = at.op("QuantizeLinear", size, step, zero, name=f"{name}.code", dtype=np.uint8)
    index = cast(at, code, onnx.TensorProto.INT32, f"{name}.index")
    looked_up = at.op("Gather", at.constant(table.codes, f"{kind}.table"), index, name=f"{name}.entry", dtype=np.uint8)
    distance = at.op("DequantizeLinear", looked_up, unit, zero, name=f"{name}.distance", dtype=np.float32)
    positive = at.op("Relu", x, name=f"{name}.positive", dtype=np.float32)
    return at.op("Sub", positive, distance, name=f"{name}.value", dtype=np.float32)
