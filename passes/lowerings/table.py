"""The lowerings by name."""

from __future__ import annotations

from collections.abc import Callable

from .base import Lowering
from .dense import Dense
from .packed import Packed
from .qdq import Qdq
from .shifts import Shifts

LOWERINGS: dict[str, Callable[[], Lowering]] = {"dense": Dense, "packed": Packed, "qdq": Qdq, "shifts": Shifts}
