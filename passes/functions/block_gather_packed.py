"""BlockGatherPacked: rows of a table of 2 to 7-bit codes, looked up as they are packed and decoded at every call.

    indices [...] -- Gather(planes uint8 [rows, *lanes, bytes]) -- BitShift -- BitwiseAnd --(BitShift)-- BitwiseOr ...
        -- Cast -- Sub(2^(bits - 1)) -- Reshape [..., blocks, block] -- Mul(Gather(scales)) -- Reshape -> y [..., k]

ShiftedScales: their scales, which a session computes once.

    shifts, a bit each, uint8 [1, bytes] -- scale * 2^shift -> scales float [rows, blocks, 1]

Codes are stored without a sign, 2^(bits - 1) added. Byte i of a row of a plane holds pieces i, i + bytes, ... of the row,
and its lanes are axes of two, so that planes of different widths broadcast to one shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..formats.planes import PLANES
from .function import Function
from .unpack import WIDTHS, byte, lanes


def reference(
    codes: NDArray[np.int8], scales: NDArray[np.float32], indices: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return rows of codes [rows, blocks, block] times scales [rows, blocks, 1], [..., blocks * block]: they round once."""
    y: NDArray[np.float32] = (codes[indices].astype(np.float32) * scales[indices]).reshape(*indices.shape, -1)
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
    lanes_of = {each: (8 // each).bit_length() - 1 for each in PLANES[bits]}
    return (1,) * lanes_of[width] + (2,) * (max(lanes_of.values()) - lanes_of[width])


def _body(bits: int) -> str:
    shift, joined, lines = bits, "", []
    for width in PLANES[bits]:
        shift -= width
        axes = lane_axes(bits, width)
        shape = ", ".join(str(3 - axis) for axis in axes)
        places = ", ".join(map(str, range(0, 8, width)))
        piece = f"piece{width}"
        lines.append(f"""
            bytes{width} = Gather <axis = 0> (rows{width}, indices)
            places{width} = Constant <value = uint8[{shape}, 1] {{{places}}}> ()
            right{width} = BitShift <direction = "RIGHT"> (bytes{width}, places{width})
            mask{width} = {byte((1 << width) - 1)}
            {piece} = BitwiseAnd (right{width}, mask{width})""")
        if shift:
            lines.append(f"left{width} = {byte(shift)}")
            lines.append(f'high{width} = BitShift <direction = "LEFT"> ({piece}, left{width})')
            piece = f"high{width}"
        if joined:
            lines.append(f"joined{width} = BitwiseOr ({joined}, {piece})")
            piece = f"joined{width}"
        joined = piece
    lines.append(f"""
        floats = Cast <to = 1> ({joined})
        middle = Constant <value_float = {float(1 << (bits - 1))!r}> ()
        steps = Sub (floats, middle)
        block_shape = Constant <value_ints: ints = @blocks> ()
        blocks = Reshape (steps, block_shape)
        factor = Gather <axis = 0> (scales, indices)
        rows = Mul (blocks, factor)
        row_shape = Constant <value_ints: ints = @row> ()
        y = Reshape (rows, row_shape)""")
    return "\n".join(lines)


BY_BITS = {
    bits: Function(
        f"BlockGatherPacked{bits}",
        ", ".join([*(f"rows{width}" for width in PLANES[bits]), "scales", "indices"]),
        "y",
        _body(bits),
        f"Look up rows of a table of {bits}-bit codes and decode them",
        keeps_axes=False,
    )
    for bits in WIDTHS
}
SCALES = Function(
    "ShiftedScales",
    "shifts, scale",
    "y",
    f"""
        late = {byte(0)}
        {lanes("shifts", "bits", 1)}
        flat_shape = Constant <value_ints = [-1]> ()
        flat = Reshape (bits, flat_shape)
        start = Constant <value_ints = [0]> ()
        count = Constant <value_ints: ints = @count> ()
        counted = Slice (flat, start, count)
        shifts_shape = Constant <value_ints: ints = @shifts> ()
        by = Reshape (counted, shifts_shape)
        ones = Cast <to = 1> (by)
        row_scale = Cast <to = 1> (scale)
        unit = Constant <value_float: float = @tensor_scale> ()
        products = Mul (row_scale, unit)
        column_shape = Constant <value_ints = [-1, 1, 1]> ()
        column = Reshape (products, column_shape)
        more = Mul (column, ones)
        y = Add (column, more)""",
    "Double the scales of rows in blocks with a shift",
    keeps_axes=False,
)
FUNCTIONS = (*BY_BITS.values(), SCALES)
