"""Codes of 2 to 8 bits in the file, one byte each once the session is made.

    INT4 plane -- Cast(uint8) --(BitShift)--+
                                            BitwiseOr ... -> [blocks, rows, n]
    2-bit or 1-bit plane [1, m] -- BitShift right by [lanes, 1] -- BitwiseAnd -- Reshape --(BitShift)--+

A plane of 4 bits is written like the narrower ones where int4 is not to be had. A sign is extended by shifts.
Every operator is one byte wide, so that folding a weight takes a few times its int8 size and no more.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.planes import PACK, PACK_LANES, Plane, split
from ..graph.editor import Emitter
from ..graph.features import Feature
from .operators import INT4, INT8, OPSET_BITWISE, UINT4, UINT8, cast, keep_first, reshape


def opset_for(bits: int) -> int:
    """Return the opset that codes of this width need in the file."""
    return 1 if bits == 8 else OPSET_BITWISE


def unpack(load: Emitter, codes: NDArray[np.int8], bits: int, name: str) -> tuple[gs.Tensor, int]:
    """Store codes; return (tensor shaped like them, bytes): int8 at 8 bits, else uint8 holding two's complement."""
    if bits == 8:
        return load.constant(codes, f"{name}.codes"), codes.nbytes
    planes = split(codes, bits, PACK if load.has(Feature.INT4_CASTS) else PACK_LANES)
    joined: gs.Tensor | None = None
    for plane in planes:
        pieces = _plane(load, plane, codes.shape, name, signed=joined is None)
        if plane.shift:
            pieces = _shift(load, pieces, "LEFT", plane.shift, f"{name}.high{plane.bits}")
        joined = pieces if joined is None else load.op("BitwiseOr", joined, pieces, name=f"{name}.joined")
    assert joined is not None
    return joined, sum(plane.packed.nbytes for plane in planes)


def as_int8(load: Emitter, codes: gs.Tensor, bits: int, name: str) -> gs.Tensor:
    """Reinterpret what `unpack` returned as int8."""
    return codes if bits == 8 else cast(load, codes, INT8, f"{name}.int8")


def shift_blocks(
    load: Emitter, codes: gs.Tensor, exponents: NDArray[np.uint8], largest: int, name: str
) -> tuple[gs.Tensor, int]:
    """Shift uint8 codes left by each block's exponent, shaped to broadcast; return (tensor, bytes stored)."""
    width = next(width for width in (1, 2, 4) if largest < 1 << width)
    shifts, size = unpack_whole(load, exponents, width, f"{name}.shifts")
    return load.op("BitShift", codes, shifts, name=f"{name}.shifted", direction="LEFT"), size


def unpack_whole(load: Emitter, values: NDArray[np.uint8], width: int, name: str) -> tuple[gs.Tensor, int]:
    """Store whole numbers below 2^width, of 1, 2 or 4 bits; return (uint8 tensor shaped like them, bytes)."""
    padded = np.zeros(-(-values.size // 8) * 8, np.uint8)
    padded[: values.size] = values.reshape(-1)
    if _is_nibbles(load, width):
        packed = PACK[width](padded)
        stored = load.packed(packed[: -(-values.size // 2)], UINT4, values.shape, f"{name}4")
        return cast(load, stored, UINT8, name), packed.nbytes
    plane = Plane(width, 0, PACK_LANES[width](padded))
    pieces: gs.Tensor = _pieces(load, plane, name)
    if padded.size != values.size:
        flat = reshape(load, pieces, (-1,), f"{name}.flat")
        pieces = keep_first(load, flat, 0, values.size, f"{name}.unpadded")
    return reshape(load, pieces, values.shape, name), plane.packed.nbytes


def _is_nibbles(load: Emitter, width: int) -> bool:
    """Tell whether pieces of this width are stored as int4 or uint4."""
    return width == 4 and load.has(Feature.INT4_CASTS)


def _plane(load: Emitter, plane: Plane, shape: tuple[int, ...], name: str, signed: bool) -> gs.Tensor:
    if _is_nibbles(load, plane.bits):
        # Casting int4 to uint8 extends the sign.
        return cast(load, load.packed(plane.packed, INT4, shape, f"{name}.codes4"), UINT8, f"{name}.bits4")
    pieces: gs.Tensor = _pieces(load, plane, f"{name}.codes")
    pieces = _extend_sign(load, pieces, plane.bits, name) if signed else pieces
    return reshape(load, pieces, shape, f"{name}.bits{plane.bits}")


def _pieces(load: Emitter, plane: Plane, name: str) -> gs.Variable:
    """Write the unpacking of pieces of 4, 2 or 1 bits: [pieces of a byte, bytes]."""
    lanes = load.constant(np.arange(0, 8, plane.bits, dtype=np.uint8)[:, None], f"lanes{plane.bits}")
    stored = load.constant(plane.packed[None, :], f"{name}{plane.bits}")
    lanes = load.op("BitShift", stored, lanes, name=f"{name}{plane.bits}.lanes", direction="RIGHT")
    return load.op("BitwiseAnd", lanes, _byte(load, (1 << plane.bits) - 1), name=f"{name}{plane.bits}.pieces")


def _extend_sign(load: Emitter, pieces: gs.Variable, bits: int, name: str) -> gs.Tensor:
    """Write copies of the sign into all bits above, one, two and four at a time: Where takes ten times as long."""
    copies = load.op("BitwiseAnd", pieces, _byte(load, 1 << (bits - 1)), name=f"{name}.sign")
    copies, count = _shift(load, copies, "LEFT", 1, f"{name}.signs"), 1
    while count < 8 - bits:
        more = _shift(load, copies, "LEFT", count, f"{name}.signs")
        copies, count = load.op("BitwiseOr", copies, more, name=f"{name}.signs"), 2 * count
    return load.op("BitwiseOr", pieces, copies, name=f"{name}.signed")


def _shift(load: Emitter, x: gs.Tensor, direction: str, by: int, name: str) -> gs.Variable:
    return load.op("BitShift", x, _byte(load, by), name=name, direction=direction)


def _byte(load: Emitter, value: int) -> gs.Constant:
    return load.constant(np.array([value], np.uint8), f"byte{value}")
