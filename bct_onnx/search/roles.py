"""Weights of one role in the layers of a model: some of them tell what the others do."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from bct_onnx.search.floats import Switch

Role = tuple[str, tuple[int, ...]]


def role_of(switch: Switch) -> Role:
    """Return what weights at the same place of different layers have in common: shape, and name but for numbers."""
    return re.sub(r"\d+", "#", switch.name), switch.shape


def spread_order(switches: Sequence[Switch]) -> list[int]:
    """Return the places of all weights, given as the model has them, in an order to measure them in.

    However soon it ends: every role comes before the second of any, large ones first, and those of one role are evenly
    spread over the layers.
    """
    members: dict[Role, list[int]] = defaultdict(list)
    for place, switch in enumerate(switches):
        members[role_of(switch)].append(place)
    ranks = {places[at]: rank for places in members.values() for rank, at in enumerate(_halving(len(places)))}
    return sorted(ranks, key=lambda place: (ranks[place], -switches[place].matrix.size, place))


def filled(switches: Sequence[Switch], known: Mapping[int, float]) -> list[float]:
    """Return a figure above 0 for every weight: its own by its place where that is known.

    Else it is drawn from weights of its role before and behind it; where none is known, the median of all.
    """
    some = {place: figure for place, figure in known.items() if 0 < figure < math.inf}
    typical = statistics.median(some.values()) if some else 1.0
    by_role: dict[Role, list[int]] = defaultdict(list)
    for place in sorted(some):
        by_role[role_of(switches[place])].append(place)

    def figure(place: int) -> float:
        if place in known:
            return known[place]
        places = by_role.get(role_of(switches[place]))
        if not places:
            return typical
        return math.exp(float(np.interp(place, places, [math.log(some[each]) for each in places])))

    return [figure(place) for place in range(len(switches))]


def _halving(count: int) -> list[int]:
    """Return the numbers below `count`, the middle first, then those of what is left on both sides, and so on."""
    order: list[int] = []
    parts = [(0, count)]
    while parts:
        order += [(low + high) // 2 for low, high in parts]
        halves = [half for low, high in parts for half in ((low, (low + high) // 2), ((low + high) // 2 + 1, high))]
        parts = [(low, high) for low, high in halves if low < high]
    return order
