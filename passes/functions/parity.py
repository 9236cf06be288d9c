"""Text of bodies that find the bits which a trellis adds to codes, eight codes at a time; see formats.trellis."""

from __future__ import annotations

from ..formats import trellis
from .lanes import byte

BYTE = 8


def added_bits(packed: str, width: int, behind: int, name: str, late: str = "") -> str:
    """Return the body that makes `name`, the added bits of codes, uint8 with axes as a plane of their last bits has.

    `packed` is the plane, pieces of `width`, that the last bits are in; `behind` are its axes behind that of the bytes.
    All of it waits for the zero `late`, if there is one.
    """
    axis = -1 - behind
    path = packed if width == 1 and not late else "path"
    lines = [
        f"bytes = Constant <value_ints = [{axis}]> () begin = Constant <value_ints = [0]> ()",
        "second = Constant <value_ints = [1]> () end = Constant <value_ints = [-1]> ()",
        *(_last_bits(packed, width, behind, late) if width > 1 else []),
        *([f"path = BitwiseOr ({packed}, {late})"] if width == 1 and late else []),
        f"first = Slice ({path}, begin, second, bytes) nothing = BitwiseXor (first, first)",
        f"earlier = Slice ({path}, begin, end, bytes) ago8 = Concat <axis = {axis}> (nothing, earlier)",
    ]
    for ago in trellis.TAPS:
        if ago < BYTE:
            lines += [
                f"by{ago} = {byte(ago)} rest{ago} = {byte(BYTE - ago)}",
                f'here{ago} = BitShift <direction = "LEFT"> ({path}, by{ago})',
                f'there{ago} = BitShift <direction = "RIGHT"> (ago8, rest{ago})',
                f"ago{ago} = BitwiseOr (here{ago}, there{ago})",
            ]
    total = f"ago{trellis.TAPS[0]}"
    for ago in trellis.TAPS[1:]:
        found = name if ago == trellis.TAPS[-1] else f"sum{ago}"
        lines.append(f"{found} = BitwiseXor ({total}, ago{ago})")
        total = found
    return "\n".join(lines)


def _last_bits(packed: str, width: int, behind: int, late: str) -> list[str]:
    """Return the lines that make `path`, the last bits of eight codes a byte, of the `width` bytes they are in."""
    mask = sum(1 << place for place in range(0, BYTE, width))
    halvings = width.bit_length() - 1
    shape = ", ".join(map(str, [2] * halvings + [1] * (1 + behind)))
    which = "mask_in_turn" if late else "last_mask"
    lines = [
        f"last_mask = {byte(mask)}",
        *([f"mask_in_turn = BitwiseOr (last_mask, {late})"] if late else []),
        f"last = BitwiseAnd ({packed}, {which})",
        f"apart = Constant <value = uint8[{shape}] {{{', '.join(map(str, range(width)))}}}> ()",
        'moved0 = BitShift <direction = "LEFT"> (last, apart)',
        "third = Constant <value_ints = [2]> ()",
    ]
    for half in range(halvings):
        found = "path" if half == halvings - 1 else f"moved{half + 1}"
        lines += [
            f"along{half} = Constant <value_ints = [{-2 - behind - half}]> ()",
            f"even{half} = Slice (moved{half}, begin, second, along{half})",
            f"odd{half} = Slice (moved{half}, second, third, along{half})",
            f"{found} = BitwiseOr (even{half}, odd{half})",
        ]
    return lines
