"""Sessions for users: with the native kernels, where they were built."""

from __future__ import annotations

from pathlib import Path

from bct_onnx import kernels
from bct_onnx.sessions.heap import freed_memory_returned
from bct_onnx.sessions.load import Options, OrtSession, open_session


def session(model: str | Path | bytes, threads: int = 0) -> OrtSession:
    """Load a model, with the native kernels where they were built: compressed files run faster, others as they did.

    On Linux with glibc the memory that decoding takes is given back to the system as soon as it is free.

    Args:
        model: a file, or a model as its bytes.
        threads: of one operator; 0 for one a core.

    Raises what ONNX Runtime raises where the model does not load.
    """
    library = kernels.library() if kernels.available() else ""
    with freed_memory_returned():
        return open_session(model, Options(threads), library)
