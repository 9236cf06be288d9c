"""Trellis codes: the numbers that a code can stand for depend on the codes before it, and are twice as many.

A code of b bits is q, its upper b - 1 bits, and its last bit, a step of the path. A convolutional code over the path,
this step and the eight before it, chooses one of four subsets of 2^(b + 1) levels, each every fourth level, and q one
of its 2^(b - 1) levels: level = 4 * q + subset. So what is chosen from has twice as many levels as codes have values,
and errors fill the space of many weights better than a cube does: 1.3 dB of the 1.5 that can be had so. Levels that
lie closer where weights are many, and are stored nowhere, bring the rest.

Trellis coded quantization: Marcellin and Fischer, IEEE Transactions on Communications 38 (1990); the convolutional
code with 256 states: Ungerboeck, IEEE Transactions on Information Theory 28 (1982).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)

# Steps that a subset depends on besides its own; all of them are in two bytes of the path.
MEMORY = 8
# How many steps ago those lie whose sum modulo two is the subset's high and low bit: octal 515 and 362.
HIGH_TAPS, LOW_TAPS = (0, 2, 3, 6, 8), (1, 4, 5, 6, 7)
SUBSETS = 4
# The levels above zero by the bits of a code, lowest first; those below are the same, mirrored. They are what an int8
# holds, doubled by a shift, of the levels with the least squared error for weights of transformers and normal numbers.
ABOVE_ZERO = {
    2: (5, 18, 37, 63),
    3: (2, 7, 13, 19, 27, 37, 48, 63),
    4: (1, 4, 7, 10, 13, 16, 19, 23, 26, 30, 35, 38, 43, 48, 55, 63),
    5: (
        *(1, 2, 4, 5, 7, 9, 10, 12, 14, 16, 17, 19, 21, 22, 24, 26),
        *(28, 30, 31, 33, 35, 36, 38, 40, 41, 43, 45, 48, 51, 54, 58, 63),
    ),
}
# At 6 bits the levels are all that there are: -64 to 63.
WHOLE = 6
WIDTHS = (*ABOVE_ZERO, WHOLE)


def levels(bits: int) -> NDArray[np.int8]:
    """Return the numbers that codes stand for, [2^(bits + 1)], lowest first."""
    if bits == WHOLE:
        return np.arange(-1 << bits, 1 << bits, dtype=np.int8)
    above = np.array(ABOVE_ZERO[bits], np.int8)
    return np.concatenate([-above[::-1], above])


def in_steps(rows: NDArray[Number]) -> NDArray[Number]:
    """Return rows [k, ...], k a multiple of 8, in the order of the path: step 8 * i + j is row j * k / 8 + i.

    So eight steps are in one byte of the path's plane, whose lanes are rows k / 8 apart.
    """
    return rows.reshape(8, -1, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def in_rows(steps: NDArray[Number]) -> NDArray[Number]:
    """Return what is in the order of the path, [k, ...], in the order of the rows."""
    return steps.reshape(-1, 8, *steps.shape[1:]).swapaxes(0, 1).reshape(steps.shape)


def subsets(path: Bytes) -> Bytes:
    """Return the subset of each step of a path of zeros and ones, [steps, ...]; before it there are zeros."""
    found: Bytes = np.zeros_like(path)
    for taps in (HIGH_TAPS, LOW_TAPS):
        found <<= np.uint8(1)
        for ago in taps:
            found[ago:] ^= path[: max(len(path) - ago, 0)]
    return found


def values(codes: NDArray[np.int8], bits: int) -> NDArray[np.int8]:
    """Return the numbers that codes [k, n] stand for, k a multiple of 8."""
    path = (codes & np.int8(1)).view(np.uint8)
    subset = in_rows(subsets(in_steps(path))).astype(np.int16)
    level = (codes.astype(np.int16) >> 1) * SUBSETS + subset + (1 << bits)
    return np.take(levels(bits), level)


def pack_path(codes: NDArray[np.int8], by_rows: bool) -> Bytes:
    """Return the paths of codes, [k, n] or, by rows, [n, k], as bytes [1, 1, k / 8, n] or [n, 1, k / 8, 1]."""
    n, k = codes.shape if by_rows else codes.shape[::-1]
    lanes = (codes & np.int8(1)).view(np.uint8).reshape(n if by_rows else 1, 8, k // 8, 1 if by_rows else n)
    return np.packbits(lanes, axis=1, bitorder="little")
