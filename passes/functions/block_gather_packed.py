"""BlockGatherPacked: rows of a table of 2 to 7-bit codes, looked up as they are packed and decoded at every call.

    indices [...] -- Gather(plane uint8 [rows, *lanes, bytes]) -- BitwiseAnd -- Cast -- Mul --+
                     (the other planes alike)                                                 Sum(-2^(bits - 1)) --+
        +----------------------------------------------------------------------------------------------------------+
        +-- Reshape [..., blocks, block] -- Mul(Gather(scales)) -- Reshape -> y [..., k]

ShiftedScales: their scales, which a session computes once.

    shifts, a bit each, uint8 [1, bytes] -- scale * 2^shift -> float [rows, blocks, 1]

Codes are stored without a sign, 2^(bits - 1) added. Byte i of a row's plane holds pieces i, i + bytes, ... of the row,
and its lanes are axes of two, so that planes of different widths broadcast to one shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..formats.planes import PLANES
from .decode_blocks import SHIFTS
from .function import Function
from .unpack import WIDTHS, byte


def reference(
    codes: NDArray[np.int8], scales: NDArray[np.float32], indices: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return rows of codes [rows, blocks, block] times scales [rows, blocks, 1]: [..., k], rounded once."""
    blocks = codes[indices].astype(np.float32) * scales[indices]
    y: NDArray[np.float32] = blocks.reshape(*indices.shape, codes.shape[1] * codes.shape[2])
    return y


def shifted_scales(
    shifts: NDArray[np.uint8], scale: NDArray[np.floating], tensor_scale: float = 1.0
) -> NDArray[np.float32]:
    """Return 2^shifts * scale * tensor_scale, [rows, blocks, 1], of shifts [rows, blocks, 1]: one product rounds."""
    column = scale.astype(np.float32) * np.float32(tensor_scale)
    y: NDArray[np.float32] = np.ldexp(column[:, None, None], shifts)
    return y


def lane_axes(bits: int, width: int) -> tuple[int, ...]:
    """Return the axes that a plane of a code has between rows and bytes: two where narrower planes have more lanes."""
    axes = {each: (8 // each).bit_length() - 1 for each in PLANES[bits]}
    return (1,) * axes[width] + (2,) * (max(axes.values()) - axes[width])


def _body(bits: int) -> str:
    shift, planes, lines = bits, [], []
    for width in PLANES[bits]:
        shift -= width
        shape = ", ".join(str(3 - axis) for axis in lane_axes(bits, width))
        places = range(0, 8, width)
        masks = ", ".join(str((1 << width) - 1 << place) for place in places)
        # A piece that is masked where it lies is 2^place times itself. Floats are faster than shifts of bytes.
        factors = ", ".join(repr(2.0 ** (shift - place)) for place in places)
        lines.append(f"""
            bytes{width} = Gather <axis = 0> (rows{width}, indices)
            mask{width} = Constant <value = uint8[{shape}, 1] {{{masks}}}> ()
            masked{width} = BitwiseAnd (bytes{width}, mask{width})
            floats{width} = Cast <to = 1> (masked{width})
            place{width} = Constant <value = float[{shape}, 1] {{{factors}}}> ()
            plane{width} = Mul (floats{width}, place{width})""")
        planes.append(f"plane{width}")
    lines.append(f"""
        middle = Constant <value = float {{{-float(1 << (bits - 1))!r}}}> ()
        steps = Sum ({", ".join(planes)}, middle)
        block_shape = Constant <value_ints: ints = @blocks> ()
        blocks = Reshape (steps, block_shape)
        factor = Gather <axis = 0> (scales, indices)
        scaled = Mul (blocks, factor)
        row_shape = Constant <value_ints: ints = @row> ()
        y = Reshape (scaled, row_shape)""")
    return "\n".join(lines)


BY_BITS = {
    bits: Function(
        f"BlockGatherPacked{bits}",
        ", ".join([*(f"rows{width}" for width in PLANES[bits]), "scales", "indices"]),
        "y",
        _body(bits),
        f"Look up rows of a table of {bits}-bit codes and decode them",
        axes="picked",
    )
    for bits in WIDTHS
}
SCALES = Function(
    "ShiftedScales",
    "shifts, scale",
    "y",
    f"""
        late = {byte(0)}
        {SHIFTS}
        ones = Cast <to = 1> (by)
        row_scale = Cast <to = 1> (scale)
        unit = Constant <value_float: float = @tensor_scale> ()
        products = Mul (row_scale, unit)
        column_shape = Constant <value_ints = [-1, 1, 1]> ()
        column = Reshape (products, column_shape)
        more = Mul (column, ones)
        y = Add (column, more)""",
    "Double the scales of rows in blocks with a shift",
    axes="shifts",
)
