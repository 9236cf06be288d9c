"""Unpack: codes of 2 to 7 bits as the file has them, one byte each.

    codes4, INT4 [*codes] -- Cast(uint8) --(BitShift)--+
                                                       BitwiseOr ... -- Cast -> y int8 [*codes]
    codes2, codes1, uint8 [1, bytes] -- BitShift right by [lanes, 1] -- BitwiseAnd -- Reshape --(BitShift)--+

A plane of 4 bits is written like the narrower ones where int4 is not to be had (Unpack4Lanes). A sign is extended by
shifts. Every operator is one byte wide, so that folding a weight takes a few times its int8 size and no more.

`turn` is zero: see Turn. What is shifted by it, too, waits until the session has computed it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..formats.planes import PLANES
from .function import Function

WIDTHS = range(2, 8)
NIBBLE = 4


@dataclass(frozen=True)
class Packing:
    """How codes of `bits` lie in the file; `lanes`: planes of 4 bits, too, have a half of all codes apart."""

    bits: int
    lanes: bool

    @property
    def suffix(self) -> str:
        """What the names of functions of such codes end in."""
        return f"{self.bits}{'Lanes' if self.lanes and NIBBLE in PLANES[self.bits] else ''}"

    @property
    def inputs(self) -> str:
        """The names of the inputs: planes, the highest first, and a turn."""
        return ", ".join([*(f"codes{width}" for width in PLANES[self.bits]), "turn"])

    def body(self, name: str) -> str:
        """Return the body that makes uint8 `name`, [*codes], of the planes: two's complement of 8 bits."""
        shift, lines, joined = self.bits, ["late = Cast <to = 2> (turn)"], ""
        for width in PLANES[self.bits]:
            shift -= width
            if width == NIBBLE and not self.lanes:
                # Casting INT4 to uint8 extends the sign.
                lines.append("plane4 = Cast <to = 2> (codes4)")
            else:
                lines.append(_plane(width, signed=not joined))
            plane = f"plane{width}"
            if shift:
                lines.append(f"left{width} = {byte(shift)} in_turn{width} = BitwiseOr (left{width}, late)")
                lines.append(f'high{width} = BitShift <direction = "LEFT"> ({plane}, in_turn{width})')
                plane = f"high{width}"
            if joined:
                lines.append(f"joined{width} = BitwiseOr ({joined}, {plane})")
                plane = f"joined{width}"
            joined = plane
        # The last line makes what is asked for.
        head, _, call = "\n".join(lines).rpartition(f"{joined} =")
        return f"{head}{name} ={call}"


def lanes(packed: str, name: str, width: int) -> str:
    """Return the body that makes `name`, uint8 [pieces of a byte, bytes], of uint8 [1, bytes].

    Byte i holds pieces i, i + bytes, i + 2 bytes, ... The value `late` is zero.
    """
    places = ", ".join(map(str, range(0, 8, width)))
    return f"""
        {name}_places = Constant <value = uint8[{8 // width}, 1] {{{places}}}> ()
        {name}_in_turn = BitwiseOr ({name}_places, late)
        {name}_right = BitShift <direction = "RIGHT"> ({packed}, {name}_in_turn)
        {name}_mask = {byte((1 << width) - 1)}
        {name} = BitwiseAnd ({name}_right, {name}_mask)"""


def byte(value: int) -> str:
    """Return a constant of one byte."""
    return f"Constant <value = uint8[1] {{{value}}}> ()"


def _plane(width: int, signed: bool) -> str:
    """Return the body that makes `plane{width}`, uint8 [*codes], of lanes."""
    found = "signed" if signed else f"pieces{width}"
    return "\n".join(
        [
            lanes(f"codes{width}", f"pieces{width}", width),
            _extend_sign(f"pieces{width}", width) if signed else "",
            f"shape{width} = Constant <value_ints: ints = @codes> ()",
            f"plane{width} = Reshape ({found}, shape{width})",
        ]
    )


def _extend_sign(pieces: str, width: int) -> str:
    """Return the body that makes `signed`: copies of the sign in all bits above, which double; Where is slower."""
    count, lines = 1, [f"sign_bit = {byte(1 << (width - 1))} sign = BitwiseAnd ({pieces}, sign_bit)"]
    lines.append(f'one = {byte(1)} copies1 = BitShift <direction = "LEFT"> (sign, one)')
    while count < 8 - width:
        lines.append(f"""
        by{count} = {byte(count)}
        more{count} = BitShift <direction = "LEFT"> (copies{count}, by{count})
        copies{2 * count} = BitwiseOr (copies{count}, more{count})""")
        count *= 2
    return "\n".join([*lines, f"signed = BitwiseOr ({pieces}, copies{count})"])


PACKINGS = {p.suffix: p for p in (Packing(bits, lanes) for bits in WIDTHS for lanes in (False, True))}
BY_SUFFIX = {
    suffix: Function(
        f"Unpack{suffix}",
        packing.inputs,
        "y",
        f"{packing.body('codes')} y = Cast <to = 3> (codes)",
        f"Unpack {packing.bits}-bit codes to int8",
        dtypes=(np.int8,),
        axes="codes" if "@codes" in packing.body("codes") else "first",
    )
    for suffix, packing in PACKINGS.items()
}
NIBBLES = Function(
    "UnpackNibbles",
    "nibbles, turn",
    "y",
    f"""
        late = Cast <to = 2> (turn)
        {lanes("nibbles", "pieces", NIBBLE)}
        flat_shape = Constant <value_ints = [-1]> ()
        y = Reshape (pieces, flat_shape)""",
    "Unpack whole numbers below 16, a half of them apart, to uint8",
    dtypes=(np.uint8,),
    axes="flat",
)
