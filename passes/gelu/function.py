"""TableGelu and its kin (GeluTanh, QuickGelu, Silu): an 8-bit code of |x| in, one of 256 integers out.

    function(x) = max(x, 0) - g(|x|)       g(a) = a - function(a): small, 0 at 0 and far from it, the same on both sides

    x -- Abs -- QuantizeLinear(step) -> index uint8 -- Cast -- Gather(table) -> uint8 -- DequantizeLinear --+
    x -- Relu ------------------------------------------------------------------------------------------- Sub -> y

Large inputs pass through: x far above zero, 0 far below. Zero stays zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.numbers import erf
from ..functions.function import Function

Array = NDArray[Any]
# The last code stands for everything beyond the table's range, where the table says 0.
LAST = 255


def _sigmoid(x: Array) -> Array:
    result: Array = np.exp(-np.logaddexp(0, -x))
    return result


# The functions: x for x >> 0 and 0 for x << 0.
CURVES: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "silu": lambda x: x * _sigmoid(x),
}


@dataclass(frozen=True)
class Table:
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
def table(kind: str) -> Table:
    """Return the table of one of `CURVES` with the range that makes the bound least.

    Inside the range an input is off by at most half a step, so g is by at most half a step times its steepest slope,
    and half an output unit. Beyond, it is what is left of g.
    """
    a = np.linspace(0, 16, 1 << 14)
    g = a - CURVES[kind](a)
    slope = float(np.abs(np.diff(g)).max() / a[1])
    # Past its peak g falls: the tail is worst where the last code begins.
    inside, tail = slope * a / (2 * LAST), np.interp(a * (1 - 0.5 / LAST), a, g)
    tail[: int(g.argmax())] = np.inf
    best = int(np.maximum(inside, tail).argmin())
    step, unit = np.float32(a[best] / LAST), np.float32(g.max() / LAST)
    centers = np.arange(LAST + 1) * np.float64(step)
    codes = np.rint((centers - CURVES[kind](centers)) / unit).astype(np.uint8)
    codes[LAST] = 0
    return Table(step, codes, unit, float(max(inside[best] + unit / 2, tail[best])))


def reference(x: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Return the function of x, within `table(kind).bound`; no NaN."""
    found = table(kind)
    with np.errstate(invalid="ignore"):
        index = np.clip(np.rint(np.abs(x) / found.step), 0, LAST).astype(np.uint8)
    y: NDArray[np.float32] = np.maximum(x, np.float32(0)) - found.codes[index].astype(np.float32) * found.unit
    return y


def _function(name: str, kind: str) -> Function:
    found = table(kind)
    body = f"""
        step = Constant <value_float = {float(found.step)!r}> ()
        zero = Constant <value = uint8 {{0}}> ()
        size = Abs (x)
        code = QuantizeLinear (size, step, zero)
        index = Cast <to = 6> (code)
        distances = Constant <value = uint8[{LAST + 1}] {{{", ".join(map(str, found.codes))}}}> ()
        entry = Gather (distances, index)
        unit = Constant <value_float = {float(found.unit)!r}> ()
        distance = DequantizeLinear (entry, unit, zero)
        positive = Relu (x)
        y = Sub (positive, distance)"""
    return Function(name, "x", "y", body, f"{name.removeprefix('Table')} by a table of 256 integers", reads_floats=True)


BY_KIND = {kind: _function(f"Table{kind.title().replace('_', '')}", kind) for kind in CURVES}
