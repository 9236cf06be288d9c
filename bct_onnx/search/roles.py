"""Weights of one role in the layers of a model: some of them tell what the others do."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from bct_onnx.search.floats import Switch

Role = tuple[str, tuple[int, ...], int]

# Part of the weights that are alike so many places on where a model repeats itself after so many.
REGULAR = 0.8
# Layers of which some tell what the others do: from so many on.
FEWEST_LAYERS = 4


def roles_of(switches: Sequence[Switch]) -> list[Role]:
    """Return what each weight has in common with those at the same place of other layers.

    Its name but for numbers, its shape, and its place in a layer: names that exporters give tell nothing but the order.
    The weights are in the order of the model.
    """
    plain = [(re.sub(r"\d+", "#", switch.name), switch.shape) for switch in switches]
    counts = range(1, len(plain) // 2 + 1)
    period = next((count for count in counts if _repeats(plain, count) >= REGULAR), 1)
    return [(*each, place % period) for place, each in enumerate(plain)]


def _repeats(items: Sequence[object], count: int) -> float:
    """Return which part of the items is the same as the one so many places before."""
    pairs = list(zip(items, items[count:], strict=False))
    return sum(one == other for one, other in pairs) / len(pairs)


def told_by_others(switches: Sequence[Switch]) -> set[int]:
    """Return the places of weights that need not be measured: those of every second layer, but for the last.

    Layers differ little from those beside them: of all-MiniLM-L6-v2, files of the same error that are chosen so are
    larger by 0.1 % at most. Roles whose weights lie side by side, or not as far apart everywhere, are none of layers.
    """
    members: dict[Role, list[int]] = defaultdict(list)
    for place, role in enumerate(roles_of(switches)):
        members[role].append(place)
    layers = [each for each in members.values() if len(each) >= FEWEST_LAYERS and each[0] + 1 < each[1]]
    layers = [each for each in layers if len(set(np.diff(each))) == 1]
    return {place for each in layers for place in each[1:-1:2]}


def spread_order(switches: Sequence[Switch]) -> list[int]:
    """Return the places of all weights, given as the model has them, in an order to measure them in.

    However soon it ends: every role comes before the second of any, large ones first, and those of one role are evenly
    spread over the layers.
    """
    members: dict[Role, list[int]] = defaultdict(list)
    for place, role in enumerate(roles_of(switches)):
        members[role].append(place)
    ranks = {places[at]: rank for places in members.values() for rank, at in enumerate(_halving(len(places)))}
    return sorted(ranks, key=lambda place: (ranks[place], -switches[place].matrix.size, place))


def filled(switches: Sequence[Switch], known: Mapping[int, float]) -> list[float]:
    """Return a figure above 0 for every weight: its own by its place where that is known.

    Else it is drawn from weights of its role before and behind it; where none is known, the median of all.
    """
    some = {place: figure for place, figure in known.items() if 0 < figure < math.inf}
    typical = statistics.median(some.values()) if some else 1.0
    by_role: dict[Role, list[int]] = defaultdict(list)
    roles = roles_of(switches)
    for place in sorted(some):
        by_role[roles[place]].append(place)

    def figure(place: int) -> float:
        if place in known:
            return known[place]
        places = by_role.get(roles[place])
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
