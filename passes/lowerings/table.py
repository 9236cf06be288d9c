"""The lowerings by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .base import Lowering
from .dense import Dense
from .packed import Packed
from .qdq import Qdq
from .shifts import Shifts

LOWERINGS: dict[str, Callable[[], Lowering]] = {
    "dense": Dense,
    "dense7": partial(Dense, most_bits=7),
    "packed": Packed,
    "qdq": Qdq,
    "shifts": Shifts,
}
# Those that decode into int8 when the session is made.
DENSE = frozenset({"dense", "dense7"})
