"""Text of bodies that unpack planes of small pieces: byte i holds pieces i, i + bytes, i + 2 bytes, ..."""

from __future__ import annotations

from collections.abc import Sequence


def lanes(packed: str, name: str, width: int, shape: Sequence[int] = ()) -> str:
    """Return the body that makes `name`, uint8 [pieces of a byte, bytes], of uint8 [1, bytes].

    Byte i holds pieces i, i + bytes, i + 2 bytes, ... Where bytes have more axes, `shape` says which of them become
    pieces: it broadcasts with them. The value `late` is zero.
    """
    return f"""{pieces_right(packed, f"{name}_right", width, shape)}
        {name}_mask = {byte((1 << width) - 1)}
        {name} = BitwiseAnd ({name}_right, {name}_mask)"""


def pieces_right(packed: str, name: str, width: int, shape: Sequence[int] = ()) -> str:
    """Return the body that makes `name`: as `lanes` does, but pieces above are still there."""
    places = ", ".join(map(str, range(0, 8, width)))
    dims = ", ".join(map(str, shape or (8 // width, 1)))
    return f"""
        {name}_places = Constant <value = uint8[{dims}] {{{places}}}> ()
        {name}_in_turn = BitwiseOr ({name}_places, late)
        {name} = BitShift <direction = "RIGHT"> ({packed}, {name}_in_turn)"""


def byte(value: int) -> str:
    """Return a constant of one byte."""
    return f"Constant <value = uint8[1] {{{value}}}> ()"


def plane(packed: str, which: str, width: int, signed: bool) -> str:
    """Return the body that makes `plane{which}`, uint8 [*codes], of lanes."""
    pieces = f"pieces{which}"
    return "\n".join(
        [
            lanes(packed, pieces, width),
            _extend_sign(pieces, width) if signed else "",
            f"shape{which} = Constant <value_ints: ints = @codes> ()",
            f"plane{which} = Reshape ({'signed' if signed else pieces}, shape{which})",
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
