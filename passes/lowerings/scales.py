"""Scales in the file: exponents of half a byte or one, and a float16 or float32 a column."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockFormat
from ..functions import block_scales
from ..functions.unpack import NIBBLE
from ..graph.editor import Emitter
from .unpack import opset_for, store_nibbles

LARGEST_NIBBLE = 15


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
    inputs, attrs, size = store_scales(load, exponents, column_scale, tensor_scale, fmt, name)
    return load.call(block_scales.FUNCTION, *inputs, name=f"{name}.block_scale", attrs=attrs)[0], size


def store_scales(
    load: Emitter,
    exponents: NDArray[np.uint8],
    column_scale: NDArray[np.floating],
    tensor_scale: float,
    fmt: BlockFormat,
    name: str,
) -> tuple[tuple[gs.Tensor, gs.Tensor], dict[str, float], int]:
    """Store what BlockScales expands; return (its inputs, its attributes, bytes)."""
    scale = scale_constant(load, column_scale, name)
    small, size = _exponents(load, exponents, fmt, name)
    return (small, scale), {"step": 1 / fmt.steps, "tensor_scale": tensor_scale}, size + column_scale.nbytes


def scale_constant(load: Emitter, column_scale: NDArray[np.floating], name: str) -> gs.Constant:
    """Store scales, float16 or float32, as they are: an error of one is an error of all that its column adds up to."""
    return load.exact(column_scale, f"{name}.scale")


def _exponents(load: Emitter, exponents: NDArray[np.uint8], fmt: BlockFormat, name: str) -> tuple[gs.Tensor, int]:
    """Return (exponents as stored, bytes)."""
    if fmt.max_exponent > LARGEST_NIBBLE or load.opset < opset_for(NIBBLE):
        return load.constant(exponents, f"{name}.exponents"), exponents.nbytes
    return store_nibbles(load, exponents, f"{name}.exponents")
