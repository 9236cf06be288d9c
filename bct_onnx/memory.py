"""How much memory there is, and what verification can afford of it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .session import Thrift

# From this size of the input on, a session of its own would be most of what compression takes.
LARGE = 2 << 30
# What sessions take in multiples of the input's size: the file, the weights and their rearranged copies; thrifty ones,
# of large models whose weights stay in their file, the compressed model's copies, and of others the file and weights.
SESSION, THRIFTY_LARGE, THRIFTY = 3, 0.5, 2


@dataclass(frozen=True)
class Means:
    """How models can be loaded: `thrift` is None where they cannot, `note` says what that means for the report."""

    thrift: Thrift | None
    note: str | None = None


def means_for(size: int, available: int | None) -> Means:
    """Return how to load an input of `size` bytes and its compression with `available` bytes of memory (None: any)."""
    if size < LARGE and (available is None or SESSION * size <= available):
        return Means(Thrift.NONE)
    needed = size * (THRIFTY_LARGE if size >= LARGE else THRIFTY)
    if available is not None and needed > available:
        free = f"about {needed / 1e9:.1f} GB of memory where {available / 1e9:.1f} GB are free"
        return Means(None, f"verification skipped, and the result was not loaded: that takes {free}")
    return Means(Thrift.MAPPED, "verified in sessions that spare memory and are slower for it: latencies say nothing")


def available_bytes() -> int | None:
    """Return the memory that this process may still take, in bytes, or None where the system does not tell."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most, used = ((group / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        found.append(int(most) - int(used))
    if not found:
        with suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)
