"""The path with the least cost through the trellis, many columns at a time: Viterbi's algorithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .trellis import MEMORY, TAPS, Bytes

Costs = NDArray[np.uint16]

# A state is the last bits of eight codes, the latest lowest. Two states lead to the same two: they differ in the bit
# that is forgotten, the highest.
STATES = 1 << MEMORY
PAIRS = STATES // 2
# Largest cost of a step. The costs of states differ by less than eight of them, since eight steps lead from any state
# to any other; what they grow by until the least is taken off again, as often, still leaves 16 bits enough.
MOST_COST, OFTEN = 3500, 8
# Cost of starting elsewhere than behind zeros.
ELSEWHERE = 30000


# The bit that the step after a pair's lower state adds, [pairs]; after the upper one it is the other: see TAPS.
_ADDED = np.bitwise_xor.reduce([np.arange(PAIRS) >> (ago - 1) & 1 for ago in TAPS])


def least_paths(costs: Costs, kinds: NDArray[np.int16]) -> Bytes:
    """Return the last bits of codes, [k, n], of the path with the least sum of costs for each of n columns.

    `costs` [4, kinds] are what a weight of each kind costs at each of four levels in a row, at most MOST_COST: twice
    the last bit and the added one say which; `kinds` [k, n].
    """
    k, wanted = kinds.shape
    # What numpy packs to bits in one go is whole bytes of columns.
    kinds = np.pad(kinds, [(0, 0), (0, -wanted % 8)])
    n = kinds.shape[1]
    cost = np.full((STATES, n), ELSEWHERE, np.uint16)
    cost[0] = 0
    after = np.empty_like(cost)
    low, high = (np.empty((PAIRS, n), np.uint16) for _ in range(2))
    # Whether the best way to a state comes from the upper one of its pair: a bit a column.
    upper = np.empty((2, PAIRS, n), np.bool_)
    came = np.empty((k, 2 * PAIRS * n // 8), np.uint8)
    for step in range(k):
        found = costs[:, kinds[step]]
        ways = after.reshape(PAIRS, 2, n)
        for bit in (0, 1):
            np.take(found, 2 * bit + _ADDED, 0, out=low, mode="clip")
            np.take(found, 2 * bit + (1 - _ADDED), 0, out=high, mode="clip")
            low += cost[:PAIRS]
            high += cost[PAIRS:]
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
