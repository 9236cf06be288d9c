"""BlockGatherRows: rows of a table of 2 to 7-bit codes, looked up as they are packed and decoded at every call.

    indices [...] -- Gather(plane uint8 [rows, *lanes, bytes]) -- BitwiseAnd -- Cast -- Mul --+
                     (the other planes alike)                                                 Sum(-2^(bits - 1)) --+
        +----------------------------------------------------------------------------------------------------------+
        +-- Reshape [..., blocks, block] -- Mul(Gather(scales)) -- Reshape -> y [..., k]

ShiftedScales: the scales in it, which a session computes once.

    shifts, a bit each, uint8 [1, bytes] -- scale * 2^shift -> float [rows, blocks, 1]

In a trellis what the planes hold, with the bits that are added, is the place of a level:

    last bits -- BitShift, BitwiseXor -- as the other planes --+-- Sum -- Cast -- Gather(levels) -- Reshape ...

Codes are stored without a sign, 2^(bits - 1) added. Byte i of a row's plane holds pieces i, i + bytes, ... of the row,
and its lanes are axes of two, so that planes of different widths broadcast to one shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..formats import trellis
from ..formats.planes import PLANES
from .decode_blocks import SHIFTS
from .function import Function, call
from .lanes import byte
from .parity import added_bits
from .unpack import WIDTHS, Packing


def reference(
    codes: NDArray[np.int8], scales: NDArray[np.float32], indices: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return rows of numbers [rows, blocks, block] times scales [rows, blocks, 1]: [..., k], rounded once."""
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


def _plane(packing: Packing, which: str, packed: str, width: int, shift: int) -> str:
    """Return the body that makes float `plane{which}`, the pieces of bytes, so far left in what they belong to."""
    shape = ", ".join(map(str, packing.piece_axes(width)))
    places = range(0, 8, width)
    masks = ", ".join(str((1 << width) - 1 << place) for place in places)
    # A piece that is masked where it lies is 2^place times itself. Floats are faster than shifts of bytes.
    factors = ", ".join(repr(2.0 ** (shift - place)) for place in places)
    return f"""
            mask{which} = Constant <value = uint8[{shape}, 1] {{{masks}}}> ()
            masked{which} = BitwiseAnd ({packed}, mask{which})
            floats{which} = Cast <to = 1> (masked{which})
            place{which} = Constant <value = float[{shape}, 1] {{{factors}}}> ()
            plane{which} = Mul (floats{which}, place{which})"""


def _body(packing: Packing) -> str:
    shift, planes, lines = packing.bits + packing.trellis, [], [f"scales = {call(SCALES)}"]
    for width in PLANES[packing.bits]:
        shift -= width
        lines.append(f"bytes{width} = Gather <axis = 0> (rows{width}, indices)")
        lines.append(_plane(packing, f"{width}", f"bytes{width}", width, shift))
        planes.append(f"plane{width}")
    if packing.trellis:
        last = PLANES[packing.bits][-1]
        lines.append(added_bits(f"bytes{last}", last, 0, "added"))
        lines.append(_plane(packing, "Added", "added", 1, 0))
        table = trellis.levels(packing.bits).astype(float)
        lines.append(f"""
        level = Sum ({", ".join(planes)}, planeAdded)
        place = Cast <to = 6> (level)
        levels = Constant <value = float[{len(table)}] {{{", ".join(map(str, table))}}}> ()
        steps = Gather (levels, place)""")
    else:
        lines.append(f"""
        middle = Constant <value = float {{{-float(1 << (packing.bits - 1))!r}}}> ()
        steps = Sum ({", ".join(planes)}, middle)""")
    lines.append("""
        block_shape = Constant <value_ints: ints = @blocks> ()
        blocks = Reshape (steps, block_shape)
        factor = Gather <axis = 0> (scales, indices)
        scaled = Mul (blocks, factor)
        row_shape = Constant <value_ints: ints = @row> ()
        y = Reshape (scaled, row_shape)""")
    return "\n".join(lines)


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


def _function(packing: Packing) -> Function:
    return Function(
        f"BlockGatherRows{packing.bits}{'Trellis' if packing.trellis else ''}",
        ", ".join([*(f"rows{width}" for width in PLANES[packing.bits]), SCALES.inputs, "indices"]),
        "y",
        _body(packing),
        f"Look up rows of a table of {packing.bits}-bit codes and decode them",
        axes="picked",
        calls=(SCALES,),
    )


# Rows lie in lanes, whatever the runtime.
PACKINGS = [Packing(bits, True) for bits in WIDTHS] + [Packing(bits, True, True) for bits in trellis.WIDTHS]
BY_PACKING = {packing: _function(packing) for packing in PACKINGS}
