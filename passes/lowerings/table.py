"""The lowerings by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..graph.features import NOTHING, Lacks
from .base import Lowering
from .dense import Dense
from .packed import Packed
from .qdq import Qdq
from .shifts import Shifts

LOWERINGS: dict[str, Callable[..., Lowering]] = {
    "dense": Dense,
    "dense7": partial(Dense, most_bits=7),
    "packed": Packed,
    "qdq": Qdq,
    "shifts": Shifts,
}
# Those that decode into int8 when the session is made.
DENSE = frozenset({"dense", "dense7"})
# And those that multiply with MatMulNBits, of which runtimes lack widths.
NBITS = frozenset({"packed", "shifts"})


def make_lowering(name: str, lacks: Lacks = NOTHING) -> Lowering:
    """Return a lowering by name, for a runtime without some features."""
    return LOWERINGS[name](lacks=lacks) if name in NBITS else LOWERINGS[name]()
