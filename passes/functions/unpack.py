"""Unpack: codes of 2 to 7 bits as the file has them, one byte each.

    codes4, INT4 [*codes] -- Cast(uint8) --(BitShift)--+
                                                       BitwiseOr ... -- Cast -> y int8 [*codes]
    codes2, codes1, uint8 [1, bytes] -- BitShift right by [lanes, 1] -- BitwiseAnd -- Reshape --(BitShift)--+

A plane of 4 bits is written like the narrower ones where int4 is not to be had (Unpack4Lanes). A sign is extended by
shifts. Every operator is one byte wide, so that folding a weight takes a few times its int8 size and no more.

In a trellis the last bit of every code is a plane of its own, the path, uint8 [n, 1, k / 8, m], which goes on along the
third axis. Its subsets are found eight at a time, and with the other bits they are the place of a level:

    path -- BitShift, BitwiseXor ... -- as codes1, the two lowest bits --+
    the other bits, as above, by two bits to the left -- BitwiseOr ------+-- Cast -- Gather(levels) -> codes

`turn` is zero: see Turn. What is shifted by it, too, waits until the session has computed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..formats import trellis
from ..formats.planes import PLANES
from .function import Function
from .lanes import byte, lanes, plane
from .subsets import levels, subsets

WIDTHS = range(2, 8)
NIBBLE = 4


@dataclass(frozen=True)
class Packing:
    """How codes of `bits` lie in the file.

    Attributes:
        bits: the width of a code.
        lanes: whether planes of 4 bits, too, have a half of all codes apart.
        trellis: whether codes stand for levels, which their path decides with them.
    """

    bits: int
    lanes: bool
    trellis: bool = False

    @property
    def planes(self) -> tuple[int, ...]:
        """The widths of the planes, the highest first, without that of the path."""
        return PLANES[self.bits - self.trellis]

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of all planes, with that of the path."""
        return (*self.planes, 1) if self.trellis else self.planes

    @property
    def suffix(self) -> str:
        """What the names of functions of such codes end in."""
        kind = "Trellis" if self.trellis else ""
        return f"{self.bits}{kind}{'Lanes' if self.lanes and NIBBLE in self.planes else ''}"

    @property
    def inputs(self) -> str:
        """The names of the inputs: planes, the highest first, the path, and a turn."""
        path = ["path"] if self.trellis else []
        return ", ".join([*(f"codes{width}" for width in self.planes), *path, "turn"])

    def body(self, name: str) -> str:
        """Return the body that makes uint8 `name`, [*codes], of the planes: two's complement of 8 bits."""
        shift, lines = self.bits + self.trellis, ["late = Cast <to = 2> (turn)"]
        places: dict[str, int] = {}
        for width in self.planes:
            shift -= width
            if width == NIBBLE and not self.lanes:
                # Casting INT4 to uint8 extends the sign.
                lines.append("plane4 = Cast <to = 2> (codes4)")
            else:
                lines.append(plane(f"codes{width}", f"{width}", width, signed=not places))
            places[f"{width}"] = shift
        if not self.trellis:
            return _join(lines, places, name)
        lines += ["steps = BitwiseOr (path, late)", subsets("steps", 2, "high", "low")]
        lines += [plane("high", "High", 1, axes=2), plane("low", "Low", 1, axes=2)]
        places |= {"High": 1, "Low": 0}
        lines += [
            _join([], places, "level"),
            "signed_level = Cast <to = 3> (level) place = Cast <to = 6> (signed_level)",
            f"levels = Constant <value = uint8[{2 << self.bits}] {{{levels(self.bits)}}}> ()",
            f"{name} = Gather (levels, place)",
        ]
        return "\n".join(lines)


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
TRELLIS = {p.suffix: p for p in (Packing(bits, lanes, True) for bits in trellis.WIDTHS for lanes in (False, True))}
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
