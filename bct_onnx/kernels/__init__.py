"""Native kernels: a library of operators that take the place of the functions in compressed files.

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(bct_onnx.kernels.library())

It is built where the package is installed with a C++ compiler, and encodes weights, too. Files are the same with and
without it.
"""

from __future__ import annotations

from contextlib import suppress

from bct_onnx.errors import BctError
from bct_onnx.kernels.build import TARGET
from passes.formats.compiled import Encoder


def available() -> bool:
    """Tell whether the library was built."""
    return TARGET.is_file()


def library() -> str:
    """Return the path of the library; raises BctError where it was not built."""
    if not available():
        raise BctError("no native kernels were built: install g++, then run python -m bct_onnx.kernels")
    return str(TARGET)


def offer_encoder() -> None:
    """Let weights be encoded by the library, where it was built and loads: the same codes, many times faster."""
    if available():
        # A library of other sources, or for another machine, leaves it to numpy.
        with suppress(OSError, AttributeError):
            Encoder.offered = Encoder(library())
