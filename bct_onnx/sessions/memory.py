"""How much memory there is, and how much of it sessions may take."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bct_onnx.sessions.session import MemoryUse

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

# From this size of the input on, a session of its own would be most of what compression takes.
LARGE = 2 << 30
# What sessions take in multiples of the input's size: the file, the weights and their rearranged copies; sparing ones,
# of large models whose weights stay in their file, the compressed model's copies, and of others the file and weights.
FULL, SPARING_LARGE, SPARING = 3, 0.5, 2


@dataclass(frozen=True)
class MemoryPlan:
    """How models can be loaded: `use` is None where they cannot, `note` says what that means for the report."""

    use: MemoryUse | None
    note: str | None = None

    @property
    def compressed(self) -> MemoryUse:
        """How a compressed model is loaded, whose weights have to be decoded."""
        return MemoryUse.FULL if self.use is MemoryUse.FULL else MemoryUse.UNFOLDED


def plan_memory(size: int, available: int | None) -> MemoryPlan:
    """Return how to load an input of `size` bytes and its compression with `available` bytes of memory (None: any)."""
    if size < LARGE and (available is None or FULL * size <= available):
        return MemoryPlan(MemoryUse.FULL)
    needed = size * (SPARING_LARGE if size >= LARGE else SPARING)
    if available is not None and needed > available:
        free = f"about {needed / 1e9:.1f} GB of memory where {available / 1e9:.1f} GB are free"
        return MemoryPlan(None, f"verification skipped, and the result was not loaded: that takes {free}")
    note = "verified in sessions that spare memory and are slower for it: latencies say nothing"
    return MemoryPlan(MemoryUse.MAPPED, note)


def available_bytes() -> int | None:
    """Return the memory that this process may still take, in bytes, or None where the system does not tell."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        found.append(_kilobytes("/proc/meminfo", "MemAvailable"))
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most, used = ((group / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        found.append(int(most) - int(used))
    if not found:
        with suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def limit_memory() -> None:
    """Let allocations of this process fail that exceed the memory now free, where the system can do that (Linux).

    What a damaged model asks for is refused so, before the system has to kill something.
    """
    available = available_bytes()
    if resource is None or available is None:
        return
    with suppress(OSError, ValueError, StopIteration):
        limit = _kilobytes("/proc/self/status", "VmData") + available
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def _kilobytes(path: str, name: str) -> int:
    """Return the bytes that a file of the system says in kilobytes behind a name."""
    lines = Path(path).read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
