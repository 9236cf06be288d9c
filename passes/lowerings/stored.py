"""Constants that nothing multiplies in integers: codes in the file, floats once the session is made.

codes, scales -- DequantizeBlocks -- (Slice) -- (Transpose) -- (Reshape) -> float [*shape]
half:  float16 [*shape] -- Cast(float)
whole: int16 [*shape] -- Cast(float)
table: codes -- TableValues -- (Slice -- Reshape) -> [*shape], bit for bit
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockTensor, round_up
from ..formats.numbers import BYTE_VALUES, Distinct, half_holds
from ..functions import dequantize_blocks, table_values
from ..functions.function import Function
from ..graph.editor import Emitter
from .operators import FLOAT, cast, reshape, slice_first
from .scales import store_scales
from .unpack import BYTE, opset_for, planes

SMALLEST_WIDTH = 2


def store_codes(
    load: Emitter, tensor: BlockTensor, shape: Sequence[int], to: int, name: str, by_columns: bool = False
) -> tuple[gs.Variable, int]:
    """Write a constant whose values are `tensor` by rows, [n, k] reshaped to `shape`; return (tensor, bytes).

    `to` is the ONNX type of the result. `by_columns`: it is [k, n] that is reshaped.
    """
    codes = np.ascontiguousarray(tensor.codes.transpose(2, 0, 1))
    exponents = np.ascontiguousarray(tensor.exponents.T)[:, :, None]
    scales, steps, scale_bytes = store_scales(
        load, exponents, tensor.column_scale[:, None, None], tensor.tensor_scale, tensor.format, name
    )
    function, stored, size = _places(load, codes, tensor.format.bits, name, dequantize_blocks)
    padded = codes.size != tensor.k * tensor.n
    whole = not (padded or by_columns)
    matrix = list(shape) if whole else [tensor.n, -1]
    attrs: dict[str, Any] = {**steps, "codes": list(codes.shape), "matrix": matrix}
    floats: gs.Tensor = load.call(function, *scales, *stored, name=f"{name}.restored", attrs=attrs)[0]
    if padded:
        floats = slice_first(load, floats, 1, tensor.k, f"{name}.unpadded")
    if by_columns:
        floats = load.op("Transpose", floats, name=f"{name}.columns", perm=[1, 0])
    restored = floats if whole else reshape(load, floats, tuple(shape), f"{name}.restored")
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
    signed = bits <= BYTE
    places = np.where(indices < 1 << (bits - 1), indices, indices - len(values.table)) if signed else indices
    padded: NDArray[np.integer] = np.zeros(
        round_up(places.size) if signed else places.size, np.int8 if signed else np.uint16
    )
    padded[: places.size] = places.reshape(-1)
    function, stored, size = _places(load, padded, bits, name, table_values)
    whole = padded.size == places.size
    attrs = {"codes": list(padded.shape), "matrix": list(shape) if whole else [-1]}
    (found,) = load.call(function, table, *stored, name=f"{name}.restored", dtype=values.table.dtype, attrs=attrs)
    if not whole:
        found = reshape(load, slice_first(load, found, 0, places.size, f"{name}.unpadded"), shape, f"{name}.restored")
    return found, size + values.table.nbytes


def _places(
    load: Emitter, codes: NDArray[np.integer], bits: int, name: str, module: ModuleType
) -> tuple[Function, list[gs.Constant], int]:
    """Store codes; return the function of a module that reads such codes, what holds them, and bytes."""
    if bits < BYTE:
        suffix, stored, size = planes(load, codes.astype(np.int8, copy=False), bits, name)
        return module.BY_SUFFIX[suffix], stored, size
    return module.WHOLE, [load.constant(codes, f"{name}.codes")], codes.nbytes
