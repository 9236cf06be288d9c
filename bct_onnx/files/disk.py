"""How large files are."""

from collections.abc import Iterable
from pathlib import Path


def total_bytes(paths: Iterable[Path]) -> int:
    """Return the bytes of files, each counted once."""
    return sum(path.stat().st_size for path in {path.resolve() for path in paths})
