"""BlockLayerNormalization: normalization of rows with statistics in integers: 8-bit codes in blocks, a shift a block.

    x [..., k] -- Reshape -- (Sub mean of the row) -> rows [r, k] -- QuantizeLinear(shifts [r, blocks]) -> codes int8
    codes -- block sums of codes and of squares, int32 [r, blocks, 1]
          -- times the block's shift over the row's least, int64; added up -> total, squares: exact
    mean = total / k * least       variance = (k * squares - total^2) * (least / k)^2
    codes -- DequantizeLinear -- Sub(mean) -- Mul(1 / sqrt(variance + epsilon)) -- Mul(scale) -- Add(bias) -> y [..., k]

What a row has in common drops out of a layer normalization, so it is taken off before the codes are made: they are of
deviations, however far from zero the row lies. The mean of the codes is taken off after them, exactly.

A block's shift is at least 1/256 of the row's largest, so all of a row is integers below 2^15 in units of its least
shift, and their sums exact up to rows of 2^16: a row of equal values has variance 0, whatever its size.

BlockRMSNormalization is without the mean; names end in NoBias without a bias, in Padded where the last block is short.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..functions.function import Function
from ..functions.quantize_blocks import CODE_TYPES, SHIFTS, SMALLEST_PEAK, block_shifts

# Octaves between the smallest and the largest shift of a row.
OCTAVES = 8
# k^2 * (127 * 2^8)^2 stays below 2^63.
WIDEST = 1 << 16
CODE = CODE_TYPES["int8"]


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

    @property
    def padding(self) -> int:
        """Zeros that fill up the last block."""
        return -self.width % self.block

    @property
    def attributes(self) -> dict[str, object]:
        """The attributes of a call."""
        blocks = -(-self.width // self.block)
        return {
            "rows": [-1, self.width],
            "padding": [0, 0, 0, self.padding],
            "stop": [self.width],
            "blocks": [-1, blocks, self.block],
            "block": [self.block],
            "block_size": self.block,
            "ulps": CODE.ulps,
            "width": self.width,
            "exact_width": float(self.width),
            "part": 1 / self.width,
            "epsilon": self.epsilon,
        }


def bound(x: NDArray[np.floating], rows: Rows) -> NDArray[np.float64]:
    """Return the largest error of each normalized value of x [..., k], before scale and bias, without rounding.

    With h the largest error of a value of x less the mean where that is subtracted (half its block's shift), H its root
    mean square over the row, s the root that the row is divided by and z the normalized value:
    (h + H (1 + |z|)) / (s - H), where the mean is not subtracted (h + H |z|) / (s - H); s - H is at least the root of
    epsilon.
    """
    x = np.asarray(x, np.float64)
    coded = x - x.mean(-1, keepdims=True) if rows.centered else x
    padded = np.pad(np.abs(coded), [(0, 0)] * (x.ndim - 1) + [(0, rows.padding)])
    peaks = padded.reshape(*x.shape[:-1], -1, rows.block).max(-1)
    peaks = np.maximum(np.maximum(peaks, peaks.max(-1, keepdims=True) / 2**OCTAVES), SMALLEST_PEAK)
    h = np.repeat(peaks * CODE.bound, rows.block, -1)[..., : rows.width]
    spread = np.sqrt(np.square(h).mean(-1, keepdims=True))
    root = np.sqrt(np.square(coded).mean(-1, keepdims=True) + rows.epsilon)
    z = np.abs(coded) / root
    found: NDArray[np.float64] = (h + spread * (rows.centered + z)) / np.maximum(root - spread, np.sqrt(rows.epsilon))
    return found


def reference(x: NDArray[np.float32], rows: Rows) -> NDArray[np.float64]:
    """Return the normalized rows [..., k] before scale and bias: statistics exact, the rest in double."""
    matrix = x.reshape(-1, rows.width)
    if rows.centered:
        matrix = matrix - matrix.mean(-1, keepdims=True)
    shifts = block_shifts(matrix, CODE, rows.block)
    shifts = np.maximum(shifts, shifts.max(-1, keepdims=True) * np.float32(2.0**-OCTAVES))
    shifts = np.repeat(shifts, rows.block, -1)[:, : rows.width]
    decoded = np.clip(np.rint(matrix / shifts), -128, 127) * shifts.astype(np.float64)
    if rows.centered:
        decoded = decoded - decoded.mean(-1, keepdims=True)
    y: NDArray[np.float64] = (decoded / np.sqrt(np.square(decoded).mean(-1, keepdims=True) + rows.epsilon)).reshape(
        x.shape
    )
    return y


_SUM = """
        part_{0} = {1} <keepdims = 0> (whole, last)
        part_{0}_int64 = Cast <to = 7> (part_{0})
        part_{0}_steps = Mul (part_{0}_int64, {2})
        {0} = ReduceSum <keepdims = 1> (part_{0}_steps, last)"""
# In double the mean of equal values is that value.
_MEAN = f"""
        {_SUM.format("total", "ReduceSum", "steps")}
        total_squared = Mul (total, total)
        spread = Sub (squares_by_width, total_squared)
        total_double = Cast <to = 11> (total)
        width_float = Constant <value_float: float = @exact_width> ()
        width_double = Cast <to = 11> (width_float)
        mean_double = Div (total_double, width_double)
        mean_steps = Cast <to = 1> (mean_double)
        mean = Mul (mean_steps, least)
        deviations = Sub ({{values}}, mean)"""


def _body(centered: bool, bias: bool, padded: bool) -> str:
    matrix = "common = ReduceMean <keepdims = 1> (x_rows, last) matrix = Sub (x_rows, common)"
    pad = "padding = Constant <value_ints: ints = @padding> () rows = Pad (matrix, padding)"
    cut = """
        first = Constant <value_ints = [0]> ()
        stop = Constant <value_ints: ints = @stop> ()
        axis = Constant <value_ints = [1]> ()
        values = Slice (decoded, first, stop, axis)"""
    values, spread = "values" if padded else "decoded", "spread" if centered else "squares_by_width"
    return f"""
        last = Constant <value_ints = [-1]> ()
        row_shape = Constant <value_ints: ints = @rows> ()
        {"x_rows" if centered else "matrix" if padded else "rows"} = Reshape (x, row_shape)
        {(matrix if padded else matrix.replace("matrix", "rows")) if centered else ""}
        {pad if padded else ""}
        {SHIFTS.replace("shifts =", "own_shifts =")}
        largest_shift = ReduceMax <keepdims = 1> (own_shifts, last)
        octaves = Constant <value_float = {2.0**-OCTAVES!r}> ()
        least = Mul (largest_shift, octaves)
        shifts = Max (own_shifts, least)
        codes = QuantizeLinear <axis = 1, block_size: int = @block_size, output_dtype = 3> (rows, shifts)
        int32 = Cast <to = 6> (codes)
        block_shape = Constant <value_ints: ints = @blocks> ()
        whole = Reshape (int32, block_shape)
        ratio = Div (shifts, least)
        steps = Cast <to = 7> (ratio)
        steps_squared = Mul (steps, steps)
        {_SUM.format("squares", "ReduceSumSquare", "steps_squared")}
        width = Constant <value_int: int = @width> ()
        squares_by_width = Mul (squares, width)
        decoded = DequantizeLinear <axis = 1, block_size: int = @block_size> (codes, shifts)
        {cut if padded else ""}
        {_MEAN.format(values=values) if centered else ""}
        spread_float = Cast <to = 1> ({spread})
        spread_root = Sqrt (spread_float)
        part = Constant <value_float: float = @part> ()
        unit = Mul (least, part)
        deviation = Mul (spread_root, unit)
        variance = Mul (deviation, deviation)
        epsilon = Constant <value_float: float = @epsilon> ()
        positive = Add (variance, epsilon)
        root = Sqrt (positive)
        inverse = Reciprocal (root)
        normalized = Mul ({"deviations" if centered else values}, inverse)
        weighted = Mul (normalized, scale)
        {"biased = Add (weighted, bias)" if bias else ""}
        shape = Shape (x)
        y = Reshape <allowzero = 1> ({"biased" if bias else "weighted"}, shape)"""


def name_of(centered: bool, bias: bool, padded: bool) -> str:
    """Return the name of the function of a form."""
    kind = "BlockLayerNormalization" if centered else "BlockRMSNormalization"
    return f"{kind}{'' if bias else 'NoBias'}{'Padded' if padded else ''}"


BY_FORM = {
    form: Function(
        name_of(*form),
        "x, scale, bias" if form[1] else "x, scale",
        "y",
        _body(*form),
        "Normalize rows by integer statistics of their 8-bit codes",
    )
    for form in itertools.product((False, True), repeat=3)
}
