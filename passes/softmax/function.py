"""BlockSoftmax: the exponential from a table of 256, summed exactly, one division at the end.

    x -- ReduceMax -> peak                        x - peak -- QuantizeLinear(1/16, 255) -> index uint8
    index -- Gather(table) -> e int64             e -- ReduceSum -> sum int64
    Cast(e) / (Cast(sum) + (peak - peak)) -> probabilities

A row of nothing but minus infinity, or with plus infinity or NaN, gives NaN, as the float operator does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..functions.function import Function

# Steps of the exponent's grid per unit. 256 of them reach down to exp(-15.9), 1.2e-7 of the peak; the last stands for
# everything below, masked scores too, and is zero.
STEPS, ENTRIES = 16, 256
# The table's largest value: float32 holds every entry exactly, and an int64 the sum of any row.
UNIT = 1 << 24
# Largest difference of a probability: the grid moves a score by at most 1/32, so that the odds of a probability move by
# at most exp(1/16), it itself by tanh(1/64); and each of n entries may lose the exp(-15.9) that the last one lacks.
GRID_BOUND, ENTRY_BOUND = float(np.tanh(1 / (4 * STEPS))), float(np.exp(-(ENTRIES - 1.5) / STEPS))


def table() -> NDArray[np.int64]:
    """Return exp((i - 255) / 16) in units of 2^-24, int64 [256]; the first is zero."""
    exponents = (np.arange(ENTRIES) - (ENTRIES - 1)) / STEPS
    exponents[0] = -np.inf
    values: NDArray[np.int64] = np.rint(UNIT * np.exp(exponents)).astype(np.int64)
    return values


def reference(x: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the probabilities, within GRID_BOUND + n * ENTRY_BOUND of the float softmax of n entries, x finite."""
    below = x - x.max(axis, keepdims=True)
    index = np.clip(np.rint(below * np.float32(STEPS)) + (ENTRIES - 1), 0, ENTRIES - 1).astype(np.int64)
    powers = table()[index]
    y: NDArray[np.float32] = powers.astype(np.float32) / powers.sum(axis, keepdims=True).astype(np.float32)
    return y


FUNCTION = Function(
    "BlockSoftmax",
    "x",
    "y",
    f"""
        axes = Constant <value_ints: ints = @axes> ()
        peak = ReduceMax <keepdims = 1> (x, axes)
        below = Sub (x, peak)
        step = Constant <value_float = {1 / STEPS!r}> ()
        top = Constant <value = uint8 {{{ENTRIES - 1}}}> ()
        code = QuantizeLinear (below, step, top)
        index = Cast <to = 6> (code)
        exponentials = Constant <value = int64[{ENTRIES}] {{{", ".join(map(str, table()))}}}> ()
        powers = Gather <axis = 0> (exponentials, index)
        sum = ReduceSum <keepdims = 1> (powers, axes)
        total = Cast <to = 1> (sum)
        # Zero, or NaN where the row has no finite peak.
        defined = Sub (peak, peak)
        norm = Add (total, defined)
        floats = Cast <to = 1> (powers)
        y = Div (floats, norm)""",
    "Softmax by a table of 256 exponentials and integer sums",
)
