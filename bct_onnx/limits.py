"""A limit on memory: what a damaged model asks for is refused before the system has to kill something."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from .memory import available_bytes

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]


def limit_memory() -> None:
    """Let allocations of this process fail that exceed the memory now free, where the system can do that (Linux)."""
    available = available_bytes()
    if resource is None or available is None:
        return
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        taken = 1024 * int(next(line for line in lines if line.startswith("VmData")).split()[1])
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = taken + available
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
