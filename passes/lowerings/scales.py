"""Float block scales from half a byte or one each: expanded when the session is made.

exponents uint4, nibbles or uint8 -- Cast -- Mul(1/steps) -- Pow(2, .) -- Mul(column scale) -> float block scales
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockFormat
from ..formats.planes import pack_nibbles
from ..graph.editor import Emitter
from ..graph.features import Feature
from .operators import FLOAT, UINT4, cast
from .unpack import opset_for, unpack_whole

NIBBLE, LARGEST_NIBBLE = 4, 15


def expand_scales(
    load: Emitter,
    exponents: NDArray[np.uint8],
    column_scale: NDArray[np.floating],
    tensor_scale: float,
    fmt: BlockFormat,
    name: str,
) -> tuple[gs.Variable, int]:
    """Write 2^(exponents / steps) * column_scale * tensor_scale; return (tensor shaped like exponents, bytes).

    `column_scale` broadcasts against `exponents`.
    """
    scale = float_scale(load, column_scale, f"{name}.scale16", f"{name}.column_scale")
    scale = load.op("Mul", scale, _number(load, tensor_scale, "tensor_scale"), name=f"{name}.scale")
    small, stored = _exponents(load, exponents, fmt, name)
    octaves = cast(load, small, FLOAT, f"{name}.octaves")
    if fmt.steps != 1:
        octaves = load.op("Mul", octaves, _number(load, 1 / fmt.steps, "step"), name=f"{name}.octaves")
    powers = load.op("Pow", _number(load, 2.0, "two"), octaves, name=f"{name}.powers")
    return load.op("Mul", powers, scale, name=f"{name}.block_scale", dtype=np.float32), stored + column_scale.nbytes


def float_scale(load: Emitter, column_scale: NDArray[np.floating], stored: str, name: str) -> gs.Tensor:
    """Write scales that are kept as float16, or float32, as float32."""
    if column_scale.dtype == np.float32:
        return load.exact(column_scale, name)
    return cast(load, load.constant(column_scale, stored), FLOAT, name)


def _exponents(load: Emitter, exponents: NDArray[np.uint8], fmt: BlockFormat, name: str) -> tuple[gs.Tensor, int]:
    """Return (exponents as stored, bytes)."""
    if fmt.max_exponent > LARGEST_NIBBLE or load.opset < opset_for(NIBBLE):
        return load.constant(exponents, f"{name}.exponents"), exponents.nbytes
    if not load.has(Feature.INT4_CASTS):
        return unpack_whole(load, exponents, NIBBLE, f"{name}.shifts")
    flat = np.zeros(-(-exponents.size // 2) * 2, np.uint8)
    flat[: exponents.size] = exponents.reshape(-1)
    packed = pack_nibbles(flat)
    return load.packed(packed, UINT4, exponents.shape, f"{name}.shifts"), packed.nbytes


def _number(load: Emitter, value: float, name: str) -> gs.Constant:
    return load.constant(np.array(value, np.float32), name)
