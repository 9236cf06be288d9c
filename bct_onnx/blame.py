"""Which weights a refusal is due to, by measurement: those that, kept in float, mend it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from passes.report import TOGETHER, TensorReport

# Weights that are named at most: a fault of more is none of theirs.
MOST_BLAMED = 4


def candidates(tensors: Iterable[TensorReport]) -> dict[str, int]:
    """Return the bytes that each coded constant takes in float, by the name it has in the input, smallest first."""
    bytes_of: dict[str, int] = {}
    for tensor in tensors:
        parts = tensor.name.split(TOGETHER)
        for part in parts:
            bytes_of[part] = bytes_of.get(part, 0) + tensor.bytes_before // len(parts)
    return dict(sorted(bytes_of.items(), key=lambda item: (item[1], item[0])))


def culprits(names: Sequence[str], mends: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return a few names of which `mends` is true, found in about log2(len(names)) calls each; none where it is not.

    `mends` tells whether all is well with the named weights in float. The shortest beginning of the names that mends
    ends with one that is needed; with it, a shorter one may do.
    """
    found: list[str] = []
    rest = list(names)
    if not mends(rest):
        return []
    while len(found) < MOST_BLAMED:
        low, high = 0, len(rest)
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (low, middle) if mends([*found, *rest[:middle]]) else (middle, high)
        found.append(rest[high - 1])
        rest = rest[: high - 1]
        if not rest or mends(found):
            return found
    return []


def keep_patterns(names: Iterable[str]) -> tuple[str, ...]:
    """Return the regular expressions that keep exactly these weights."""
    return tuple(f"^{re.escape(name)}$" for name in names)
