"""Native kernels: a library of operators that take the place of the functions in compressed files.

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(bct_onnx.kernels.library())

It is built where the package is installed with a C++ compiler. Files are the same with and without it.
"""

from __future__ import annotations

from bct_onnx.errors import BctError
from bct_onnx.kernels.build import TARGET


def available() -> bool:
    """Tell whether the library was built."""
    return TARGET.is_file()


def library() -> str:
    """Return the path of the library; raises BctError where it was not built."""
    if not available():
        raise BctError("no native kernels were built: install g++, then run python -m bct_onnx.kernels")
    return str(TARGET)
