"""The path with the least cost through the trellis, many columns at a time: Viterbi's algorithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .trellis import HIGH_TAPS, LOW_TAPS, MEMORY, Bytes

Costs = NDArray[np.uint16]

# A state is the last eight steps, the latest in its lowest bit. Two states lead to the same two: they differ in the
# step that is forgotten, the highest bit.
STATES = 1 << MEMORY
PAIRS = STATES // 2
# Largest cost of a step. The costs of states differ by less than eight of them, since eight steps lead from any state
# to any other; what they grow by until the least is taken off again, as often, still leaves 16 bits enough.
MOST_COST, OFTEN = 3500, 8
# Cost of starting elsewhere than behind zeros.
ELSEWHERE = 30000


def _subset(taps: tuple[int, ...], state: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum modulo two of the steps before the next one, which is zero."""
    total = np.zeros_like(state)
    for ago in taps:
        if ago:
            total ^= state >> (ago - 1) & 1
    return total


# The subset of a step 0 from the lower state of each pair, [pairs]. A step 1, and the upper state, have the other one
# with the same low bit, since the taps of the high bit end at 0 and 8 and those of the low bit lie between.
_SUBSET = 2 * _subset(HIGH_TAPS, np.arange(PAIRS)) + _subset(LOW_TAPS, np.arange(PAIRS))
_OTHER = _SUBSET ^ 2


def least_paths(costs: Costs, kinds: NDArray[np.int16]) -> Bytes:
    """Return the steps, 0 or 1, [k, n], of the path with the least sum of costs for each of n columns.

    `costs` [4, kinds] are what a weight of each kind costs in each subset, at most MOST_COST; `kinds` [k, n].
    """
    k, wanted = kinds.shape
    # What numpy packs to bits in one go is whole bytes of columns.
    kinds = np.pad(kinds, [(0, 0), (0, -wanted % 8)])
    n = kinds.shape[1]
    cost = np.full((STATES, n), ELSEWHERE, np.uint16)
    cost[0] = 0
    after = np.empty_like(cost)
    same, other, low, high = (np.empty((PAIRS, n), np.uint16) for _ in range(4))
    # Whether the best way to a state comes from the upper one of its pair: a bit a column.
    upper = np.empty((2, PAIRS, n), np.bool_)
    came = np.empty((k, 2 * PAIRS * n // 8), np.uint8)
    for step in range(k):
        found = costs[:, kinds[step]]
        np.take(found, _SUBSET, 0, out=same, mode="clip")
        np.take(found, _OTHER, 0, out=other, mode="clip")
        ways = after.reshape(PAIRS, 2, n)
        for bit, (below, above) in enumerate(((same, other), (other, same))):
            np.add(cost[:PAIRS], below, out=low)
            np.add(cost[PAIRS:], above, out=high)
            np.less(high, low, out=upper[bit])
            np.minimum(low, high, out=ways[:, bit])
        came[step] = np.packbits(upper, bitorder="little")
        cost, after = after, cost
        if step % OFTEN == OFTEN - 1:
            cost -= cost.min(axis=0)
    return _back(came.reshape(k, 2, PAIRS, -1), cost)[:, :wanted]


def _back(came: Bytes, cost: Costs) -> Bytes:
    """Return the steps that lead to the state with the least cost, [k, n]."""
    columns = np.arange(cost.shape[1])
    byte, place = columns // 8, (columns % 8).astype(np.uint8)
    state = cost.argmin(axis=0)
    path = np.empty((len(came), len(columns)), np.uint8)
    for step in range(len(came) - 1, -1, -1):
        bit, pair = state & 1, state >> 1
        path[step] = bit
        upper = came[step, bit, pair, byte] >> place & np.uint8(1)
        state = pair | upper.astype(np.int64) << (MEMORY - 1)
    return path
