"""LayerNormalizationQuantizeRows: rows normalized, as floats for what adds to them and as codes for what multiplies.

    x [..., k] -- LayerNormalization(gain [k], bias [k]) -- y [..., k] -- QuantizeRows -> q [..., k], scale [..., 1]

Where products read rows of another gain and bias than the floats have, as `even_channels` leaves them, both are a call:

    x -- LayerNormalization(gain, bias) -- y;  x -- LayerNormalization(even_gain, even_bias) -- QuantizeRows -> q, scale

Bodies are these nodes. A library of kernels quantizes a row while it is at hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import quantize_rows
from .function import Function, call

# A kernel's y errs by this, times the largest |x| of its row over the row's deviation, times |gain|.
BOUND = 1e-6


def reference(
    x: NDArray[np.float32], gain: NDArray[np.float32], bias: NDArray[np.float32], epsilon: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    """Return y [..., k], q [..., k] and scale [..., 1]; float64 until y is rounded."""
    wide = x.astype(np.float64)
    centered = wide - wide.mean(-1, keepdims=True)
    deviation = np.sqrt(np.square(centered).mean(-1, keepdims=True) + epsilon)
    y = np.asarray(centered / deviation * gain + bias, np.float32)
    return y, *quantize_rows.reference(y)


def _node(y: str, before: str = "") -> str:
    return f"{y} = LayerNormalization <axis = -1, epsilon: float = @epsilon> (x, {before}gain, {before}bias)"


def _function(quantize: Function, even: bool) -> Function:
    rest = quantize.inputs.removeprefix("x")
    rows = "even" if even else "y"
    nodes = [_node("y"), *([_node("even", "even_")] if even else [])]
    return Function(
        f"LayerNormalization{'Even' if even else ''}{quantize.name}",
        f"x, gain, bias{', even_gain, even_bias' if even else ''}{rest}",
        f"y, {quantize.outputs}",
        "\n".join([*nodes, f"{quantize.outputs} = {call(quantize, {'x': rows})}"]),
        f"Normalize each row of x. {quantize.summary.replace('x', rows)}",
        (np.float32, *quantize.dtypes),
        calls=(quantize,),
    )


_QUANTIZERS = tuple(each[False] for each in (quantize_rows.OWN, quantize_rows.LIKE, quantize_rows.DIVISION))
# By the function that quantizes.
BY_QUANTIZER = {each.name: _function(each, even=False) for each in _QUANTIZERS}
# By the function that normalizes once: what it gives is codes alone.
EVEN = {BY_QUANTIZER[each.name].name: _function(each, even=True) for each in _QUANTIZERS}
