"""Normalization of rows with statistics in integers: codes of 8 bits in blocks, a shift per block.

    x [..., k] -- Reshape -- (Sub mean of the row) -> rows [r, k] -- QuantizeLinear(shifts [r, blocks]) -> codes int8
    codes -- block sums of codes and of squares, int32 [r, blocks, 1]
          -- times the block's shift over the row's least, int64; added up -> total, squares: exact
    mean = total / k * least       variance = (k * squares - total^2) * (least / k)^2
    codes -- DequantizeLinear -- Sub(mean) -- Mul(1 / sqrt(variance + epsilon)) -- Mul(scale) -- Add(bias) -> [..., k]

What a row has in common drops out of a layer normalization, so it is taken off before the codes are made: they are of
deviations, however far from zero the row lies. The mean of the codes is taken off after them, exactly.

A block's shift is at least 1/256 of the row's largest, so all of a row is integers below 2^15 in units of its least
shift, and their sums exact up to rows of 2^16: a row of equal values has variance 0, whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..graph.editor import Emitter
from .blockwise import CODE_TYPES, SMALLEST_PEAK, block_shifts
from .operators import FLOAT, INT8, cast, reshape

# Octaves between the smallest and the largest shift of a row.
OCTAVES = 8
# k^2 * (127 * 2^8)^2 stays below 2^63.
WIDEST = 1 << 16
_CODE = CODE_TYPES["int8"]
_INT32, _INT64, _DOUBLE = onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE


@dataclass(frozen=True)
class Rows:
    """What is asked of a normalization.

    Attributes:
        width: k, length of a row.
        block: neighbours that share a shift.
        epsilon: added to the variance.
        centered: whether the mean is subtracted.
    """

    width: int
    block: int
    epsilon: float
    centered: bool


def normalize(
    at: Emitter, x: gs.Tensor, rows: Rows, scale: gs.Tensor | None, bias: gs.Tensor | None, name: str
) -> gs.Variable:
    """Write the normalization of float32 x [..., k], with scale and bias [1, k]; errs by `normalization_bound`."""
    blocks = -(-rows.width // rows.block)
    matrix = reshape(at, x, (-1, rows.width), f"{name}.rows")
    if rows.centered:
        common = at.op("ReduceMean", matrix, _axis(at), name=f"{name}.common", keepdims=1)
        matrix = at.op("Sub", matrix, common, name=f"{name}.deviations")
    if blocks * rows.block != rows.width:
        padding = np.array([0, 0, 0, blocks * rows.block - rows.width], np.int64)
        matrix = at.op("Pad", matrix, at.constant(padding, f"{name}.padding"), name=f"{name}.padded")
    shifts = block_shifts(at, matrix, _CODE, rows.block, name)
    least = at.op("ReduceMax", shifts, _axis(at), name=f"{name}.largest", keepdims=1)
    least = at.op("Mul", least, _number(at, 2.0**-OCTAVES), name=f"{name}.least")
    shifts = at.op("Max", shifts, least, name=f"{name}.shifts", dtype=np.float32)
    codes = at.op(
        "QuantizeLinear", matrix, shifts, name=f"{name}.codes", axis=1, block_size=rows.block, output_dtype=INT8
    )
    mean, variance = _statistics(at, codes, shifts, least, rows, name)
    values = at.op("DequantizeLinear", codes, shifts, name=f"{name}.decoded", axis=1, block_size=rows.block)
    if blocks * rows.block != rows.width:
        bounds = [at.constant(np.array([v], np.int64), n) for v, n in ((0, "first"), (rows.width, "stop"), (1, "axis"))]
        values = at.op("Slice", values, *bounds, name=f"{name}.unpadded")
    if mean is not None:
        values = at.op("Sub", values, mean, name=f"{name}.centered")
    values = at.op("Mul", values, _inverse_root(at, variance, rows.epsilon, name), name=f"{name}.normalized")
    if scale is not None:
        values = at.op("Mul", values, scale, name=f"{name}.scaled")
    if bias is not None:
        values = at.op("Add", values, bias, name=f"{name}.biased")
    shape = at.op("Shape", x, name=f"{name}.shape", dtype=np.int64)
    return at.op("Reshape", values, shape, name=f"{name}.value", dtype=np.float32, allowzero=1)


def normalization_bound(x: NDArray[np.floating], rows: Rows) -> NDArray[np.float64]:
    """Return the largest error of each normalized value of x [..., k], before scale and bias, without rounding.

    With h the largest error of a value of x less the mean where that is subtracted (half its block's shift), H its root
    mean square over the row, s the root that the row is divided by and z the normalized value:
    (h + H (1 + |z|)) / (s - H), where the mean is not subtracted (h + H |z|) / (s - H); s - H is at least the root of
    epsilon.
    """
    x = np.asarray(x, np.float64)
    coded = x - x.mean(-1, keepdims=True) if rows.centered else x
    padded = np.pad(np.abs(coded), [(0, 0)] * (x.ndim - 1) + [(0, -rows.width % rows.block)])
    peaks = padded.reshape(*x.shape[:-1], -1, rows.block).max(-1)
    peaks = np.maximum(np.maximum(peaks, peaks.max(-1, keepdims=True) / 2**OCTAVES), SMALLEST_PEAK)
    h = np.repeat(peaks * _CODE.bound, rows.block, -1)[..., : rows.width]
    spread = np.sqrt(np.square(h).mean(-1, keepdims=True))
    root = np.sqrt(np.square(coded).mean(-1, keepdims=True) + rows.epsilon)
    z = np.abs(coded) / root
    bound: NDArray[np.float64] = (h + spread * (rows.centered + z)) / np.maximum(root - spread, np.sqrt(rows.epsilon))
    return bound


def _statistics(
    at: Emitter, codes: gs.Variable, shifts: gs.Variable, least: gs.Variable, rows: Rows, name: str
) -> tuple[gs.Variable | None, gs.Variable]:
    """Return the mean (where it is subtracted) and the root of the variance, float [r, 1]."""
    whole = cast(at, codes, _INT32, f"{name}.int32")
    whole = reshape(at, whole, (-1, -(-rows.width // rows.block), rows.block), f"{name}.blocks")
    steps = cast(at, at.op("Div", shifts, least, name=f"{name}.ratio"), _INT64, f"{name}.steps")
    width = at.constant(np.array(rows.width, np.int64), "width")

    def add_up(op: str, what: str, factor: gs.Variable) -> gs.Variable:
        part = at.op(op, whole, _axis(at), name=f"{name}.{what}_of_block", keepdims=0)
        part = cast(at, part, _INT64, f"{name}.{what}_int64")
        part = at.op("Mul", part, factor, name=f"{name}.{what}_in_steps")
        return at.op("ReduceSum", part, _axis(at), name=f"{name}.{what}", keepdims=1)

    squares = add_up("ReduceSumSquare", "squares", at.op("Mul", steps, steps, name=f"{name}.steps_squared"))
    spread = at.op("Mul", squares, width, name=f"{name}.squares_times_width")
    mean: gs.Variable | None = None
    if rows.centered:
        total = add_up("ReduceSum", "total", steps)
        spread = at.op("Sub", spread, at.op("Mul", total, total, name=f"{name}.total_squared"), name=f"{name}.spread")
        # In double the mean of equal values is that value.
        exact = cast(at, total, _DOUBLE, f"{name}.total_double")
        exact = at.op("Div", exact, at.constant(np.array(rows.width, np.float64), "width_double"), name=f"{name}.mean")
        mean = at.op("Mul", cast(at, exact, FLOAT, f"{name}.mean_in_steps"), least, name=f"{name}.mean_float")
    root = at.op("Sqrt", cast(at, spread, FLOAT, f"{name}.spread_float"), name=f"{name}.spread_root")
    unit = at.op("Mul", least, _number(at, 1 / rows.width), name=f"{name}.unit")
    return mean, at.op("Mul", root, unit, name=f"{name}.deviation")


def _inverse_root(at: Emitter, deviation: gs.Variable, epsilon: float, name: str) -> gs.Variable:
    """Write 1 / sqrt(deviation^2 + epsilon)."""
    square = at.op("Mul", deviation, deviation, name=f"{name}.variance")
    if epsilon:
        square = at.op("Add", square, _number(at, epsilon), name=f"{name}.with_epsilon")
    return at.op("Reciprocal", at.op("Sqrt", square, name=f"{name}.root"), name=f"{name}.inverse_root")


def _axis(at: Emitter) -> gs.Constant:
    return at.constant(np.array([-1], np.int64), "last_axis")


def _number(at: Emitter, value: float) -> gs.Constant:
    return at.constant(np.array(value, np.float32), "number")
