"""Writes codes of 2 to 8 bits into the file, and the calls that decode them when the session is made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.planes import PACK, PACK_LANES, pack_rows, split
from ..functions import decode_blocks as decoding
from ..functions import unpack as unpacking
from ..functions.unpack import NIBBLE, Packing
from ..graph.editor import Emitter
from ..graph.features import Feature
from .operators import INT4, OPSET_BITWISE, UINT4, reshape, slice_first

BYTE = 8
# What names of functions that unpack codes end in, their inputs, and bytes.
Stored = tuple[str, list[gs.Constant], int]


def opset_for(bits: int) -> int:
    """Return the opset that codes of this width need in the file."""
    return 1 if bits == BYTE else OPSET_BITWISE


def planes(load: Emitter, codes: NDArray[np.int8], bits: int, name: str) -> Stored:
    """Store codes below 8 bits; return (what names of functions that unpack them end in, their inputs, bytes)."""
    nibbles = load.has(Feature.INT4_CASTS)
    found = split(codes, bits, PACK if nibbles else PACK_LANES)
    stored = [
        load.packed(plane.packed, INT4, codes.shape, f"{name}.codes4")
        if plane.bits == NIBBLE and nibbles
        else load.constant(plane.packed[None, :], f"{name}.codes{plane.bits}")
        for plane in found
    ]
    return Packing(bits, not nibbles).suffix, [*stored, now(load)], sum(plane.packed.nbytes for plane in found)


def trellis_planes(load: Emitter, codes: NDArray[np.int8], bits: int, name: str, by_rows: bool) -> Stored:
    """Store codes in a trellis, [k, n] or, by rows, [n, k], k a multiple of 8; return what `planes` does."""
    packing = Packing(bits, True, True)
    n, k = codes.shape if by_rows else codes.shape[::-1]
    rows, columns = (n, 1) if by_rows else (1, n)
    found = split(codes, bits, pack_rows(rows))
    stored = [
        load.constant(
            plane.packed.reshape(rows, *packing.lane_axes(plane.bits), k // 8, columns), f"{name}.codes{plane.bits}"
        )
        for plane in found
    ]
    return packing.suffix, [*stored, now(load)], sum(plane.packed.nbytes for plane in found)


def now(load: Emitter) -> gs.Constant:
    """Return the turn of what does not wait for one; see graph.turns."""
    return load.constant(np.zeros(1, np.float32), "now")


def unpack(load: Emitter, codes: NDArray[np.int8], bits: int, name: str) -> tuple[gs.Tensor, int]:
    """Store codes, as many as a multiple of 8; return (int8 tensor shaped like them, bytes)."""
    if bits == BYTE:
        return load.constant(codes, f"{name}.codes"), codes.nbytes
    return decode_codes(load, planes(load, codes, bits, name), codes.shape, name)


def decode_codes(load: Emitter, stored: Stored, shape: tuple[int, ...], name: str) -> tuple[gs.Tensor, int]:
    """Return (the int8 numbers of stored codes, [*shape], bytes)."""
    suffix, inputs, size = stored
    (values,) = load.call(unpacking.BY_SUFFIX[suffix], *inputs, name=f"{name}.int8", attrs={"codes": list(shape)})
    return values, size


def decode_blocks(
    load: Emitter, stored: Stored, shape: tuple[int, ...], shifts: NDArray[np.uint8], matrix: tuple[int, ...], name: str
) -> tuple[gs.Variable, int]:
    """Return (int8 `numbers << shifts` of stored codes, [*shape], and a shift of 0 or 1 a block, [*matrix], bytes)."""
    suffix, inputs, size = stored
    packed, attrs = store_shifts(load, shifts, name)
    attrs = {**attrs, "codes": list(shape), "matrix": list(matrix)}
    function = decoding.BY_SUFFIX[suffix]
    (values,) = load.call(function, packed, *inputs, name=f"{name}.matrix", attrs=attrs)
    return values, size + int(packed.values.nbytes)


def store_shifts(load: Emitter, shifts: NDArray[np.uint8], name: str) -> tuple[gs.Constant, dict[str, Any]]:
    """Store shifts of 0 or 1, a bit each; return (uint8 [1, bytes], the attributes of a function that unpacks them)."""
    packed = PACK[1](_padded(shifts))
    attrs = {"shifts": list(shifts.shape), "count": [shift_count(shifts.shape)]}
    return load.constant(packed[None, :], f"{name}.shifts"), attrs


def shift_count(shape: tuple[int, ...]) -> int:
    """Return how many of the bits that are stored are shifts, as functions that unpack them want it."""
    count = math.prod(shape)
    return count if count % BYTE else decoding.ALL


def store_nibbles(load: Emitter, values: NDArray[np.uint8], name: str) -> tuple[gs.Tensor, int]:
    """Store whole numbers below 16, half a byte each; return (uint4 or uint8 tensor shaped like them, bytes)."""
    padded = _padded(values)
    if load.has(Feature.INT4_CASTS):
        nibbles = PACK[NIBBLE](padded)[: -(-values.size // 2)]
        return load.packed(nibbles, UINT4, values.shape, name), nibbles.nbytes
    lanes = PACK_LANES[NIBBLE](padded)
    (flat,) = load.call(unpacking.NIBBLES, load.constant(lanes[None, :], name), now(load), name=f"{name}.flat")
    if padded.size != values.size:
        flat = slice_first(load, flat, 0, values.size, f"{name}.unpadded")
    return reshape(load, flat, values.shape, f"{name}.bytes"), lanes.nbytes


def _padded(values: NDArray[Any]) -> NDArray[np.uint8]:
    padded = np.zeros(-(-values.size // BYTE) * BYTE, np.uint8)
    padded[: values.size] = values.reshape(-1)
    return padded
