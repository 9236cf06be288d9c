"""Constants that nothing multiplies in integers: codes in the file, floats once the session is made.

codes -- unpack -- Cast(float) -- Mul(block scale) -- Reshape -- (Slice) -- (Transpose) -- Reshape -> float [*shape]
half:  float16 [*shape] -- Cast(float)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockTensor
from ..graph.editor import Emitter
from .operators import FLOAT, cast, keep_first, reshape
from .scales import expand_scales
from .unpack import as_int8, unpack


def store_codes(
    load: Emitter, tensor: BlockTensor, shape: Sequence[int], to: int, name: str, by_columns: bool = False
) -> tuple[gs.Variable, int]:
    """Write a constant whose values are `tensor` by rows, [n, k] reshaped to `shape`; return (tensor, bytes).

    `to` is the ONNX type of the result. `by_columns`: it is [k, n] that is reshaped.
    """
    codes = np.ascontiguousarray(tensor.codes.transpose(2, 0, 1))
    values, size = unpack(load, codes, tensor.format.bits, name)
    values = as_int8(load, values, tensor.format.bits, name)
    scale, scale_bytes = expand_scales(
        load,
        np.ascontiguousarray(tensor.exponents.T)[:, :, None],
        tensor.column_scale[:, None, None],
        tensor.tensor_scale,
        tensor.format,
        name,
    )
    floats: gs.Tensor = load.op("Mul", cast(load, values, FLOAT, f"{name}.steps"), scale, name=f"{name}.blocks")
    if codes.size != tensor.k * tensor.n:
        floats = reshape(load, floats, (tensor.n, -1), f"{name}.matrix")
        floats = keep_first(load, floats, 1, tensor.k, f"{name}.unpadded")
    if by_columns:
        floats = reshape(load, floats, (tensor.n, tensor.k), f"{name}.rows")
        floats = load.op("Transpose", floats, name=f"{name}.columns", perm=[1, 0])
    restored = reshape(load, floats, tuple(shape), f"{name}.restored")
    return restored if to == FLOAT else cast(load, restored, to, f"{name}.cast"), size + scale_bytes


def store_half(load: Emitter, values: NDArray[np.floating], to: int, name: str) -> tuple[gs.Variable, int]:
    """Write a constant as float16; return (tensor, bytes)."""
    half = values.astype(np.float16)
    return cast(load, load.constant(half, f"{name}.half"), to, f"{name}.restored"), half.nbytes
