"""Row-wise dynamic int8 quantization of an activation: tokens do not disturb each other.

    x [..., k] -- ReduceMax, -ReduceMin, tiny -- Max -- Mul(1/127) -> scale [..., 1]
    x -- QuantizeLinear(scale, zero point 128, block_size k) -> q [..., k] uint8

An element errs by at most half its row's scale, max|x| / 254. Two reductions are cheaper than Abs and one, and a
blockwise QuantizeLinear with the row as its block than Div and a scalar one: it needs opset 21, and more than one axis.
Where it is not to be had, or the number of axes is not known, Div takes its place.

Where x cannot fall below a small floor (-0.17 after Gelu), few codes are kept for what is negative, the scale is finer
by 1.75 (2 for a floor of zero) and ReduceMin is spared:

    x [..., k] -- ReduceMax -- Max(-floor * 223/32) -- Mul(1/223) -> scale [..., 1], zero point 32
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.editor import Emitter
from ..graph.features import Feature
from ..graph.origin import Origins
from ..graph.shapes import rank
from .operators import reduce_last

# A row of zeros is divided by this, not by zero.
SMALLEST_SCALE = 1e-30
# Larger than every scale: what is quantized with it is zero.
HUGE = 1e38
# Codes of uint8, those below the middle, and those below zero where there is a floor.
CODES, MIDDLE, BELOW_ZERO = 255, 128, 32
# Longest sum of products of a uint8 and an int8 that an int32 holds, whatever they are, and so any correction for zero
# points: no kernel that adds up codes is given more.
LONGEST_SUM = (2**31 - 1) // (CODES * 128)


def least_peak(floor: float) -> float:
    """Return the peak that rows with a negative floor are taken to have at least: below, codes for it would be few."""
    return -floor / BELOW_ZERO * (CODES - BELOW_ZERO)


class Rows(NamedTuple):
    """A row-wise quantized activation: (q - zero_point) * scale."""

    q: gs.Variable
    scale: gs.Variable
    zero_point: gs.Constant


class RowQuantizer:
    """Writes the quantization of activations, each once in a graph, and what they have in common."""

    def __init__(self) -> None:
        """Begin with nothing written."""
        self._rows: dict[tuple[str, int], Rows] = {}
        self._zeros: dict[tuple[object, ...], gs.Variable] = {}
        self._origins = Origins()

    def quantize(self, at: Emitter, x: gs.Tensor, k: int, floor: float | None) -> Rows:
        """Write the quantization of a float activation [..., k], which is never below `floor`, over its last axis."""
        key = (x.name, at.scope)
        if key not in self._rows:
            self._rows[key] = self._write(at, x, k, floor, f"x{len(self._rows)}")
        return self._rows[key]

    def _write(self, at: Emitter, x: gs.Tensor, k: int, floor: float | None, name: str) -> Rows:
        below = MIDDLE if floor is None else BELOW_ZERO if floor < 0 else 0
        least = max(SMALLEST_SCALE, -floor / below if floor and below else 0.0)
        peaks = [reduce_last(at, "ReduceMax", x, f"{name}.max"), _number(at, least * (CODES - below), "least_peak")]
        if floor is None:
            peaks.append(at.op("Neg", reduce_last(at, "ReduceMin", x, f"{name}.min"), name=f"{name}.depth"))
        peak = at.op("Max", *peaks, name=f"{name}.peak")
        scale = at.op("Mul", peak, _number(at, 1 / (CODES - below), "step"), name=f"{name}.scale")
        zero_point = at.constant(np.array(below, np.uint8), "zero_point")
        # A vector has no axis of rows to give a scale each.
        if not at.has(Feature.BLOCKWISE) or rank(x) is None:
            steps = at.op("Div", x, scale, name=f"{name}.quotient")
            q = at.op("QuantizeLinear", steps, _number(at, 1, "one"), zero_point, name=f"{name}.q")
            return Rows(q, scale, zero_point)
        zeros = self._zero_points(at, x, scale, zero_point, name)
        q = at.op("QuantizeLinear", x, scale, zeros, name=f"{name}.q", axis=-1, block_size=k)
        return Rows(q, scale, zero_point)

    def _zero_points(
        self, at: Emitter, x: gs.Tensor, scale: gs.Variable, zero_point: gs.Constant, name: str
    ) -> gs.Variable:
        """Return one zero point a row, all of them the same: QuantizeLinear wants as many as it has scales.

        Written once for activations that have the same rows in every run.
        """
        shape = at.proven_shape(x)
        key = (self._origins.find(x).name if shape is None else shape[:-1], zero_point.name, at.scope)
        if key not in self._zeros:
            huge = _number(at, HUGE, "huge")
            self._zeros[key] = at.op("QuantizeLinear", scale, huge, zero_point, name=f"{name}.zeros")
        return self._zeros[key]


def _number(at: Emitter, value: float, name: str) -> gs.Constant:
    return at.constant(np.array(value, np.float32), name)
