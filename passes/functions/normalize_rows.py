"""LayerNormalizationQuantizeRows: rows normalized, as floats for what adds to them and as codes for what multiplies.

    x [..., k] -- LayerNormalization(gain [k], bias [k]) -- y [..., k] -- QuantizeRows -> q [..., k], scale [..., 1]

Bodies are the two nodes. A library of kernels quantizes a row while it is at hand.
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


def _function(quantize: Function) -> Function:
    inputs = quantize.inputs.replace("x", "y", 1)
    rest = quantize.inputs.removeprefix("x")
    quantized = call(quantize).replace(f"({quantize.inputs})", f"({inputs})")
    return Function(
        f"LayerNormalization{quantize.name}",
        f"x, gain, bias{rest}",
        f"y, {quantize.outputs}",
        f"""y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (x, gain, bias)
        {quantize.outputs} = {quantized}""",
        f"Normalize each row of x. {quantize.summary.replace('x', 'y')}",
        (np.float32, *quantize.dtypes),
        calls=(quantize,),
    )


# By the function that quantizes.
BY_QUANTIZER = {
    each[0].name: _function(each[0]) for each in (quantize_rows.OWN, quantize_rows.LIKE, quantize_rows.DIVISION)
}
