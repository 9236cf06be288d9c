"""Text of bodies that decode a trellis: subsets from its path, eight steps at a time, and levels."""

from __future__ import annotations

import numpy as np

from ..formats import trellis
from .lanes import byte

BYTE = 8


def subsets(path: str, axis: int, high: str, low: str) -> str:
    """Return the body that makes the high and low bits of subsets, uint8 like `path`, whose bytes go on along an axis.

    Each byte holds eight steps, the earliest lowest, and what was fewer than eight steps ago is in it and in the byte
    before: see formats.trellis.
    """
    lines = [
        f"axis = Constant <value_ints = [{axis}]> () begin = Constant <value_ints = [0]> ()",
        "second = Constant <value_ints = [1]> () end = Constant <value_ints = [-1]> ()",
        f"first = Slice ({path}, begin, second, axis) zeros = BitwiseXor (first, first)",
        f"earlier = Slice ({path}, begin, end, axis) ago8 = Concat <axis = {axis}> (zeros, earlier)",
    ]
    lines += [f"step{ago} = {byte(ago)}" for ago in range(1, BYTE)]
    for ago in range(1, BYTE):
        lines.append(f'here{ago} = BitShift <direction = "LEFT"> ({path}, step{ago})')
        lines.append(f'there{ago} = BitShift <direction = "RIGHT"> (ago8, step{BYTE - ago})')
        lines.append(f"ago{ago} = BitwiseOr (here{ago}, there{ago})")
    for name, taps in ((high, trellis.HIGH_TAPS), (low, trellis.LOW_TAPS)):
        total = f"ago{taps[0]}" if taps[0] else path
        for ago in taps[1:]:
            found = name if ago == taps[-1] else f"{name}_to{ago}"
            lines.append(f"{found} = BitwiseXor ({total}, ago{ago})")
            total = found
    return "\n".join(lines)


def levels(bits: int) -> str:
    """Return the values of the levels of codes, those below zero counted from the end, as bytes in a constant."""
    return ", ".join(map(str, np.roll(trellis.levels(bits), 1 << bits).view(np.uint8)))
