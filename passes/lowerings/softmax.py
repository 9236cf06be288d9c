"""Softmax in integers: the exponential from a table of 256, summed exactly, one division at the end.

x -- ReduceMax -> peak                        x - peak -- QuantizeLinear(1/16, 255) -> index uint8
index -- Gather(table) -> e int64             e -- ReduceSum -> sum int64
Cast(e) / (Cast(sum) + (peak - peak)) -> probabilities
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..graph.editor import Emitter
from .operators import FLOAT, cast

# Steps of the exponent's grid per unit. 256 of them reach down to exp(-15.9), 1.2e-7 of the peak; the last stands for
# everything below, masked scores too, and is zero.
STEPS, ENTRIES = 16, 256
# The table's largest value: float32 holds every entry exactly, and an int64 the sum of any row.
UNIT = 1 << 24
# Largest difference of a probability: the grid moves a score by at most 1/32, so that the odds of a probability move by
# at most exp(1/16), it itself by tanh(1/64); and each of n entries may lose the exp(-15.9) that the last one lacks.
GRID_BOUND, ENTRY_BOUND = float(np.tanh(1 / (4 * STEPS))), float(np.exp(-(ENTRIES - 1.5) / STEPS))
_INT32 = onnx.TensorProto.INT32


def softmax(at: Emitter, x: gs.Tensor, axis: int, name: str) -> gs.Variable:
    """Write the softmax of float32 x along an axis of n entries, within GRID_BOUND + n * ENTRY_BOUND of the float one.

    A row of nothing but minus infinity, or with plus infinity or NaN, gives NaN, as the float operator does.
    """
    axes = at.constant(np.array([axis], np.int64), "softmax_axis")
    peak = at.op("ReduceMax", x, axes, name=f"{name}.peak", keepdims=1)
    below = at.op("Sub", x, peak, name=f"{name}.below_peak")
    step = at.constant(np.array(1 / STEPS, np.float32), "exponent_step")
    top = at.constant(np.array(ENTRIES - 1, np.uint8), "exponent_top")
    index = cast(at, at.op("QuantizeLinear", below, step, top, name=f"{name}.steps"), _INT32, f"{name}.index")
    powers = at.op("Gather", at.constant(table(), "exponentials"), index, name=f"{name}.powers", axis=0)
    total = cast(at, at.op("ReduceSum", powers, axes, name=f"{name}.sum", keepdims=1), FLOAT, f"{name}.total")
    # Zero, or NaN where the row has no finite peak.
    defined = at.op("Sub", peak, peak, name=f"{name}.defined")
    total = at.op("Add", total, defined, name=f"{name}.norm")
    return at.op("Div", cast(at, powers, FLOAT, f"{name}.exp"), total, name=f"{name}.softmax", dtype=np.float32)


def table() -> NDArray[np.int64]:
    """Return exp((i - 255) / 16) in units of 2^-24, int64 [256]; the first is zero."""
    exponents = (np.arange(ENTRIES) - (ENTRIES - 1)) / STEPS
    exponents[0] = -np.inf
    values: NDArray[np.int64] = np.rint(UNIT * np.exp(exponents)).astype(np.int64)
    return values
