"""Float block scales from one byte each: expanded when the session is made.

exponents uint8 -- Cast -- Mul(1/steps) -- Pow(2, .) -- Mul(column scale) -> float block scales
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockFormat
from ..graph.editor import Emitter
from .operators import FLOAT, cast


def expand_scales(
    load: Emitter,
    exponents: NDArray[np.uint8],
    column_scale: NDArray[np.float16],
    tensor_scale: float,
    fmt: BlockFormat,
    name: str,
) -> tuple[gs.Variable, int]:
    """Write 2^(exponents / steps) * column_scale * tensor_scale; return (tensor shaped like exponents, bytes).

    `column_scale` broadcasts against `exponents`.
    """
    scale = cast(load, load.constant(column_scale, f"{name}.scale16"), FLOAT, f"{name}.column_scale")
    scale = load.op("Mul", scale, _number(load, tensor_scale, "tensor_scale"), name=f"{name}.scale")
    stored = exponents.nbytes + column_scale.nbytes
    octaves = cast(load, load.constant(exponents, f"{name}.exponents"), FLOAT, f"{name}.octaves")
    if fmt.steps != 1:
        octaves = load.op("Mul", octaves, _number(load, 1 / fmt.steps, "step"), name=f"{name}.octaves")
    powers = load.op("Pow", _number(load, 2.0, "two"), octaves, name=f"{name}.powers")
    return load.op("Mul", powers, scale, name=f"{name}.block_scale", dtype=np.float32), stored


def _number(load: Emitter, value: float, name: str) -> gs.Constant:
    return load.constant(np.array(value, np.float32), name)
