"""Trellis codes: the numbers that a code can stand for depend on the codes before it, and are twice as many.

A code of b bits gets one bit more, a sum modulo two of the last bits of codes before it: level = 2 * code + bit. So
there are 2^(b + 1) levels to choose from, every other one at a time, and errors fill the space of many weights better
than a cube does: 1.1 dB of the 1.5 that can be had so. Levels that lie closer where weights are many bring the rest.

Trellis coded quantization: Marcellin and Fischer, IEEE Transactions on Communications 38 (1990). The convolutional code
is systematic, which costs 0.2 dB against the best with as many states: so the bit is found without looking at more
than the codes' last bits.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)

# Codes that the bit may depend on, and how many codes ago those lie on which it does: the best of all choices.
MEMORY = 8
TAPS = (2, 3, 7, 8)
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
    """Return rows [k, ...], k a multiple of 8, in the order of the trellis: step 8 * i + j is row j * k / 8 + i.

    So the last bits of eight steps are a byte, whose lanes are rows k / 8 apart.
    """
    return rows.reshape(8, -1, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def in_rows(steps: NDArray[Number]) -> NDArray[Number]:
    """Return what is in the order of the trellis, [k, ...], in the order of the rows."""
    return steps.reshape(-1, 8, *steps.shape[1:]).swapaxes(0, 1).reshape(steps.shape)


def added_bits(last: Bytes) -> Bytes:
    """Return the bit that each step adds, of the last bits of its code and those before, [steps, ...]."""
    found: Bytes = np.zeros_like(last)
    for ago in TAPS:
        found[ago:] ^= last[: max(len(last) - ago, 0)]
    return found


def values(codes: NDArray[np.int8], bits: int) -> NDArray[np.int8]:
    """Return the numbers that codes [k, n] stand for, k a multiple of 8."""
    added = in_rows(added_bits(in_steps((codes & np.int8(1)).view(np.uint8))))
    level = 2 * codes.astype(np.int16) + added + (1 << bits)
    return np.take(levels(bits), level)
