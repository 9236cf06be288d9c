"""Unpack: codes of 2 to 7 bits as the file has them, one byte each.

    codes4, INT4 [*codes] -- Cast(uint8) --(BitShift)--+
                                                       BitwiseOr ... -- Cast -> y int8 [*codes]
    codes2, codes1, uint8 [1, bytes] -- BitShift right by [lanes, 1] -- BitwiseAnd -- Reshape --(BitShift)--+

A plane of 4 bits is written like the narrower ones where int4 is not to be had (Unpack4Lanes). A sign is extended by
shifts. Every operator is one byte wide, so that folding a weight takes a few times its int8 size and no more.

In a trellis planes of all widths have axes for lanes, [a, *lanes, k / 8, b] for [k, b] or, by rows, [a, k], so that
they broadcast. The last bits of eight codes are a byte, and the bits to be added are found eight at a time:

    planes -- BitShift -- BitwiseAnd --(BitShift)-------+
    last bits -- BitShift, BitwiseXor -- as codes1 -----+-- BitwiseOr -- Cast -- Gather(levels) -- Reshape -> [*codes]

At 6 bits, where levels are all whole numbers, nothing is looked up.

`turn` is zero: see Turn. What is shifted by it, too, waits until the session has computed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..formats.planes import PLANES
from ..formats.trellis import WHOLE, levels
from ..formats.trellis import WIDTHS as TRELLIS_WIDTHS
from .function import Function
from .lanes import byte, lanes, pieces_right, plane
from .parity import added_bits

WIDTHS = range(2, 8)
NIBBLE = 4


@dataclass(frozen=True)
class Packing:
    """How codes of `bits` lie in the file.

    Attributes:
        bits: the width of a code.
        lanes: whether planes of 4 bits, too, have a half of all codes apart.
        trellis: whether codes stand for levels, which codes before them decide with them; always in lanes.
    """

    bits: int
    lanes: bool
    trellis: bool = False

    @property
    def suffix(self) -> str:
        """What the names of functions of such codes end in."""
        if self.trellis:
            return f"{self.bits}Trellis"
        return f"{self.bits}{'Lanes' if self.lanes and NIBBLE in PLANES[self.bits] else ''}"

    @property
    def has_int4(self) -> bool:
        """Tell whether a plane is of the type int4."""
        return NIBBLE in PLANES[self.bits] and not (self.lanes or self.trellis)

    @property
    def inputs(self) -> str:
        """The names of the inputs: planes, the highest first, and a turn."""
        return ", ".join([*(f"codes{width}" for width in PLANES[self.bits]), "turn"])

    def lane_axes(self, width: int) -> tuple[int, ...]:
        """Return the axes that a plane has for lanes: two where narrower planes have more, those in a byte first."""
        narrowest = 1 if self.trellis else PLANES[self.bits][-1]
        axes, most = ((8 // each).bit_length() - 1 for each in (width, narrowest))
        return (1,) * axes + (2,) * (most - axes)

    def piece_axes(self, width: int) -> tuple[int, ...]:
        """Return the axes of what the pieces of a byte are: two where `lane_axes` are one."""
        return tuple(3 - axis for axis in self.lane_axes(width))

    def body(self, name: str) -> str:
        """Return the body that makes uint8 `name`, [*codes], of the planes: two's complement of 8 bits."""
        return self._trellis_body(name) if self.trellis else self._plain_body(name)

    def _plain_body(self, name: str) -> str:
        shift, lines = self.bits, ["late = Cast <to = 2> (turn)"]
        places: dict[str, int] = {}
        for width in PLANES[self.bits]:
            shift -= width
            if width == NIBBLE and not self.lanes:
                # Casting INT4 to uint8 extends the sign.
                lines.append("plane4 = Cast <to = 2> (codes4)")
            else:
                lines.append(plane(f"codes{width}", f"{width}", width, signed=not places))
            places[f"{width}"] = shift
        return _join(lines, places, name)

    def _trellis_body(self, name: str) -> str:
        highest, *others = PLANES[self.bits]
        shift, lines = self.bits + 1 - highest, ["late = Cast <to = 2> (turn)"]
        # At the top of a byte, where a shift takes away what else the byte had: that takes no mask.
        lines.append(pieces_right(f"codes{highest}", f"plane{highest}", highest, (*self.piece_axes(highest), 1, 1)))
        places = {f"{highest}": 8 - highest}
        if self.bits == WHOLE:
            lines.append(_signed_half(f"plane{highest}", 8 - highest))
            places = {"Signed": 0}
        for width in others:
            shift -= width
            lines.append(lanes(f"codes{width}", f"plane{width}", width, (*self.piece_axes(width), 1, 1)))
            places[f"{width}"] = shift
        last = PLANES[self.bits][-1]
        lines.append(added_bits(f"codes{last}", last, 1, "added", "late"))
        lines.append(lanes("added", "planeAdded", 1, (*self.piece_axes(1), 1, 1)))
        return f"""
        {_join(lines, places | {"Added": 0}, "level")}
        {"" if self.bits == WHOLE else self._lookup()}
        codes_shape = Constant <value_ints: ints = @codes> ()
        {name} = Reshape ({"level" if self.bits == WHOLE else "numbers"}, codes_shape)"""

    def _lookup(self) -> str:
        """Return the body that makes `numbers` of `level`, whose highest plane is at the top of the byte."""
        highest = PLANES[self.bits][0]
        below = self.bits + 1 - highest
        place = np.arange(256)
        place = place >> (8 - highest) << below | place & ((1 << below) - 1)
        # Levels below zero are behind the others, as two's complement has them.
        table = np.roll(levels(self.bits), 1 << self.bits).view(np.uint8)[place]
        return f"""place = Cast <to = 6> (level)
        levels = Constant <value = uint8[{len(table)}] {{{", ".join(map(str, table))}}}> ()
        numbers = Gather (levels, place)"""


def _signed_half(found: str, left: int) -> str:
    """Return the body that makes `planeSigned`: `found` so far left, halved with its sign."""
    return f"""
        top_left = {byte(left)} top = BitShift <direction = "LEFT"> ({found}, top_left)
        one_right = {byte(1)} half = BitShift <direction = "RIGHT"> (top, one_right)
        sign_mask = {byte(128)} sign = BitwiseAnd (top, sign_mask)
        planeSigned = BitwiseOr (half, sign)"""


def _join(lines: list[str], places: Mapping[str, int], name: str) -> str:
    """Return `lines` and the body that makes `name` of the planes that they make, each so far left in it as is said."""
    lines, joined = list(lines), ""
    for which, shift in places.items():
        found = f"plane{which}"
        if shift:
            lines.append(f"left{which} = {byte(shift)} in_turn{which} = BitwiseOr (left{which}, late)")
            lines.append(f'high{which} = BitShift <direction = "LEFT"> ({found}, in_turn{which})')
            found = f"high{which}"
        if joined:
            lines.append(f"joined{which} = BitwiseOr ({joined}, {found})")
            found = f"joined{which}"
        joined = found
    # The last line makes what is asked for.
    head, _, call = "\n".join(lines).rpartition(f"{joined} =")
    return f"{head}{name} ={call}"


PLAIN = {p.suffix: p for p in (Packing(bits, lanes) for bits in WIDTHS for lanes in (False, True))}
TRELLIS = {p.suffix: p for p in (Packing(bits, True, True) for bits in TRELLIS_WIDTHS)}
PACKINGS = PLAIN | TRELLIS
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
