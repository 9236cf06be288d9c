"""Memory that is freed while a session is made goes back to the system, and the process is as before afterwards."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Prints how many pieces of a megabyte out of eight have pages of their own, before, inside and behind the context.
PROGRAM = """
import ctypes
from bct_onnx.sessions.heap import freed_memory_returned

library = ctypes.CDLL(None)
Info = type("Info", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in "abcdefghij"]})
library.mallinfo2.restype = Info
library.malloc.restype = ctypes.c_void_p

def apart():
    before = library.mallinfo2().d
    for _ in range(8):
        library.malloc(ctypes.c_size_t(1 << 20))
    return library.mallinfo2().d - before

with freed_memory_returned():
    inside = apart()
print(inside, apart())
"""
glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="no glibc that counts its pieces")


@glibc
@pytest.mark.parametrize(("chosen", "counts"), [(None, [8, 0]), (1 << 16, [8, 8]), (1 << 24, [0, 0])])
def test_large_pieces_have_pages_of_their_own_inside(chosen, counts):
    """A threshold that the user chose stays."""
    environment = os.environ if chosen is None else {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(chosen)}
    command, root = [sys.executable, "-c", PROGRAM], Path(__file__).parents[2]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    assert [int(count) for count in run.stdout.split()] == counts
