"""Constants that nothing multiplies in integers: codes in the file, floats once the session is made.

codes -- unpack -- Cast(float) -- Mul(block scale) -- Reshape -- (Slice) -- (Transpose) -- Reshape -> float [*shape]
half:  float16 [*shape] -- Cast(float)
whole: int16 [*shape] -- Cast(float)
table: codes -- unpack -- Cast(int32) -- Gather(table) -- (Slice) -- Reshape -> [*shape], bit for bit
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockTensor, round_up
from ..formats.numbers import BYTE_VALUES, Distinct, half_holds
from ..graph.editor import Emitter
from .operators import FLOAT, INT32, cast, keep_first, reshape
from .scales import expand_scales
from .unpack import as_int8, opset_for, unpack

SMALLEST_WIDTH = 2


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


def store_short(load: Emitter, values: NDArray[np.float32], name: str) -> gs.Tensor:
    """Write float32 numbers as float16 where it holds them, else as they are; return the float32 tensor."""
    return store_half(load, values, FLOAT, name)[0] if half_holds(values, each=True) else load.exact(values, name)


def store_whole(load: Emitter, values: NDArray[np.floating], to: int, name: str) -> tuple[gs.Variable, int]:
    """Write whole numbers that an int16 holds; return (tensor, bytes)."""
    whole = values.astype(np.int16)
    return cast(load, load.constant(whole, f"{name}.whole"), to, f"{name}.restored"), whole.nbytes


def table_width(load: Emitter, values: int) -> int:
    """Return the bits of a place in a table of so many values: 16, 8, or as few as the opset has."""
    if values > BYTE_VALUES:
        return 16
    bits = max(SMALLEST_WIDTH, (values - 1).bit_length())
    return bits if load.opset >= opset_for(bits) else 8


def store_table(load: Emitter, values: Distinct, name: str) -> tuple[gs.Variable, int]:
    """Write a constant of few different values, [*shape]; return (tensor, bytes).

    Codes are signed: those below zero count from the table's end, as Gather does.
    """
    table, indices = load.constant(values.table, f"{name}.values"), values.indices
    bits, shape = table_width(load, len(values.table)), indices.shape
    if bits > 8:
        codes = indices.astype(np.uint16)
        places: gs.Tensor = load.constant(codes, f"{name}.places16")
        size = codes.nbytes
    else:
        signed = np.where(indices < 1 << (bits - 1), indices, indices - len(values.table)).astype(np.int8)
        padded = np.zeros(round_up(signed.size), np.int8)
        padded[: signed.size] = signed.reshape(-1)
        places, size = unpack(load, padded, bits, name)
        places = as_int8(load, places, bits, name)
    places = cast(load, places, INT32, f"{name}.places")
    found: gs.Tensor = load.op("Gather", table, places, name=f"{name}.found", axis=0)
    if bits <= 8 and padded.size != indices.size:
        found = keep_first(load, found, 0, indices.size, f"{name}.unpadded")
    return reshape(load, found, shape, f"{name}.restored"), size + values.table.nbytes
