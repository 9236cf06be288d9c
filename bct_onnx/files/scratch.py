"""Room on disk for what is made before it is written: large arrays live in a file without a name, mapped."""

import mmap
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.files.tensors import release

# Smaller arrays stay in memory.
_SMALLEST = 1 << 18


class Scratch:
    """A file that grows by one array at a time and goes with the last of them, however the process ends."""

    def __init__(self, target: Path) -> None:
        """Make the file in the folder of `target`, a Stage's path; raises BctError if that cannot be written to."""
        self._target = target
        try:
            self._file = tempfile.TemporaryFile(dir=target.parent)  # noqa: SIM115 (open as long as this lives)
        except OSError as error:
            raise self._refusal(error) from error

    def close(self) -> None:
        """Close the file; what was moved stays mapped as long as somebody holds it."""
        self._file.close()

    def move(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return an array equal to `array`, of any shape, that takes no memory of the process if it is large.

        Raises BctError if the disk is full.
        """
        if array.nbytes < _SMALLEST or array.dtype.hasobject:
            return array
        try:
            offset = self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            self._file.flush()
            return np.memmap(self._file, array.dtype, "r", offset, array.shape)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> BctError:
        return BctError(f"{self._target}: cannot be written: {error.strerror}")


def let_go(array: np.ndarray[Any, Any]) -> None:
    """Give back the memory that what was read of an array takes, where it was moved; it is read anew when asked for."""
    if isinstance(array.base, mmap.mmap):
        release(memoryview(array.base))
