"""The lowerings by name."""

from __future__ import annotations

from collections.abc import Callable

from ..graph.features import NOTHING, Lacks
from .base import Lowering
from .both import Both
from .dense import Dense
from .packed import Packed
from .qdq import Qdq
from .shifts import Shifts

# For a runtime without some features.
LOWERINGS: dict[str, Callable[[Lacks], Lowering]] = {
    "dense": lambda _: Dense(),
    "dense7": lambda _: Dense(most_bits=7),
    "packed": lambda lacks: Packed(lacks=lacks),
    "both": lambda lacks: Both(lacks=lacks),
    "qdq": lambda _: Qdq(),
    "shifts": lambda lacks: Shifts(lacks=lacks),
}


def make_lowering(name: str, lacks: Lacks = NOTHING) -> Lowering:
    """Return a lowering by name, for a runtime without some features."""
    return LOWERINGS[name](lacks)
