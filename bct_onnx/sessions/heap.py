"""The C library's memory: what sessions free goes back to the system, instead of lying in pieces.

glibc keeps pieces up to the size of the largest that was freed, at most 32 MB, in its heap, where what stays of a
decoding keeps the pages around it. Making a session frees many of just that size.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3), and bytes from which a piece has pages of its own.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SMALL_PIECE = 1 << 18
# Where glibc's own adaption ends: its largest threshold, 4 MB times the bytes of a long; twice that at the heap's end.
_LARGEST_PIECE = ctypes.sizeof(ctypes.c_long) << 22
# A user's own choice stays.
_CHOSEN = "MALLOC_MMAP_THRESHOLD_"


@contextmanager
def freed_memory_returned() -> Iterator[None]:
    """Let pieces of 256 kB and more go back to the system when they are freed; nothing where there is no glibc."""
    library = _glibc()
    if library is None or _CHOSEN in os.environ:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _SMALL_PIECE)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_PIECE)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_PIECE)
        library.malloc_trim(0)


def give_back() -> None:
    """Give memory that was freed back to the system, where there is glibc.

    What sessions free stays with the process otherwise, and comes on top of what the next one takes.
    """
    gc.collect()
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
