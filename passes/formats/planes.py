"""Codes of 2 to 8 bits as planes of 4, 2 and 1 bits, the widths that unpack with byte operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Pack = Callable[[Bytes], Bytes]

# Widths of the planes of a code, most significant first. The first plane carries the sign.
PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}


class Plane(NamedTuple):
    """Some bits of every code, packed.

    Attributes:
        bits: bits of one piece: 8, 4, 2 or 1.
        shift: how far left the piece belongs in the code.
        packed: uint8 [elements * bits / 8]. By PACK nibbles are packed as ONNX packs int4 (neighbours share a byte, the
            first one low), by PACK_LANES like smaller pieces, so that byte i holds elements i, i + m, i + 2m, ... for m
            bytes.
    """

    bits: int
    shift: int
    packed: Bytes


def split(codes: NDArray[np.int8], bits: int, pack: Mapping[int, Pack] | None = None) -> list[Plane]:
    """Return the planes of two's complement codes, packed by PACK or PACK_LANES; the codes are a multiple of 8."""
    unsigned = codes.reshape(-1).view(np.uint8)
    shift, planes = bits, []
    for width in PLANES[bits]:
        shift -= width
        pieces = (unsigned >> np.uint8(shift)) & np.uint8((1 << width) - 1)
        planes.append(Plane(width, shift, (pack or PACK)[width](pieces)))
    return planes


def pack_nibbles(pieces: Bytes) -> Bytes:
    """Return [m] values below 16 as [m / 2] bytes, the first of each pair in the low half, as ONNX stores int4."""
    # Two values are the bytes of one little-endian number, and whole numbers are faster than every other byte.
    pairs = np.ascontiguousarray(pieces).view("<u2")
    packed: Bytes = (pairs | pairs >> np.uint16(4)).astype(np.uint8)
    return packed


def _pack_strided(pieces: Bytes, width: int, rows: int = 1) -> Bytes:
    lanes = pieces.reshape(rows, 8 // width, -1)
    packed: Bytes = lanes[:, 0].copy()
    for lane in range(1, lanes.shape[1]):
        packed |= lanes[:, lane] << np.uint8(lane * width)
    return packed.reshape(-1)


PACK: dict[int, Pack] = {
    8: lambda pieces: pieces.copy(),
    4: pack_nibbles,
    2: lambda pieces: _pack_strided(pieces, 2),
    1: lambda pieces: _pack_strided(pieces, 1),
}
# With nibbles, too, a half of all pieces apart: what unpacks them by shifts has whole rows to shift.
PACK_LANES: dict[int, Pack] = {**PACK, 4: lambda pieces: _pack_strided(pieces, 4)}


def pack_rows(rows: int) -> dict[int, Pack]:
    """Return what packs each of `rows` equal parts of all pieces as PACK_LANES packs the whole."""
    return {width: partial(_pack_strided, width=width, rows=rows) for width in (4, 2, 1)}
