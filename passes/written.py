"""One float constant in the form that suits it: a table, whole numbers, float16, codes in blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .formats.block import BlockFormat, BlockTensor, decode
from .formats.encode import encode
from .formats.numbers import distinct, half_holds
from .graph.editor import Emitter
from .lowerings.stored import store_codes, store_half, store_table, store_whole, table_width
from .lowerings.unpack import opset_for
from .options import Options

# Constants that are no weights are added or multiplied and go straight to the result.
OTHER_BITS = 8
BLOCK_SIZE = 32
# Rows shorter than this would each carry a scale: the values are taken as one row.
SHORTEST_ROW = 64
# Largest error of a value, as a part of the peak of its row and of its column where these are not short.
WORST = 1 / 16
# A table is worth its while up to this part of the bytes.
MOST_OF_BYTES = 0.6


@dataclass(frozen=True)
class Written:
    """A constant as it is now: tensor, bytes, bits of a code, how it is stored, precision in decibels, block size."""

    restored: gs.Variable
    bytes: int
    bits: int
    lowering: str
    sqnr_db: float = math.inf
    block_size: int = 0


@dataclass(frozen=True)
class Writer:
    """Writes one constant, called `name`, in one of several forms; None where a form does not suit it."""

    load: Emitter
    options: Options
    name: str

    MOST_BITS: ClassVar[int] = 16

    def table(self, values: NDArray[np.floating], most_bits: int) -> Written | None:
        """Write places in a table of the different values, to the bit, of at most so many bits."""
        found = distinct(values)
        bits = table_width(self.load, len(found.table)) if found else 0
        if found is None or bits > most_bits:
            return None
        if values.size * bits / 8 + found.table.nbytes > MOST_OF_BYTES * values.nbytes:
            return None
        restored, size = store_table(self.load, found, self.name)
        return Written(restored, size, bits, "table")

    def whole(self, values: NDArray[np.floating]) -> Written | None:
        """Write whole numbers that an int16 holds, to the bit."""
        with np.errstate(invalid="ignore", over="ignore"):
            back = values.astype(np.int16).astype(values.dtype)
        if values.itemsize <= 2 or back.tobytes() != np.ascontiguousarray(values).tobytes():
            return None
        restored, size = store_whole(self.load, values, _type(values), self.name)
        return Written(restored, size, 16, "whole")

    def half(self, values: NDArray[np.floating], each: bool) -> Written | None:
        """Write float16 that holds values to half an ulp: `each`, or what counts beside the largest."""
        if values.itemsize <= 2 or not half_holds(values, each):
            return None
        restored, size = store_half(self.load, values, _type(values), self.name)
        noise = float(np.square(values - values.astype(np.float16)).sum())
        signal = float(np.square(values).sum())
        return Written(restored, size, 16, "half", 10 * math.log10(signal / noise) if noise and signal else math.inf)

    def weight(self, values: NDArray[np.floating], bits: int) -> Written:
        """Write the codes of a trained weight, finite, of the next width that the opset has."""
        tensor = self._encode(as_rows(values).T, bits if self.load.opset >= opset_for(bits) else OTHER_BITS)
        return self._codes(values, tensor, by_columns=False)

    def near(self, values: NDArray[np.floating]) -> Written | None:
        """Write codes of 8 bits of finite values in columns or in rows, or float16: the first that `is_near`."""
        columns, rows = as_columns(values), as_rows(values)
        if columns is not None:
            tensor = self._encode(columns, OTHER_BITS)
            if is_near(decode(tensor), values):
                return self._codes(values, tensor, by_columns=True)
        tensor = self._encode(rows.T, OTHER_BITS)
        if is_near(decode(tensor).T, values):
            return self._codes(values, tensor, by_columns=False)
        with np.errstate(over="ignore"):
            return self.half(values, each=False) if is_near(values.astype(np.float16), values) else None

    def _encode(self, matrix: NDArray[np.floating], bits: int) -> BlockTensor:
        fine = self.options.scales == "fine"
        fmt = BlockFormat.fine(bits, BLOCK_SIZE) if fine else BlockFormat.shifts_only(bits, BLOCK_SIZE)
        return encode(matrix, fmt, self.options.workers)

    def _codes(self, values: NDArray[np.floating], tensor: BlockTensor, by_columns: bool) -> Written:
        restored, size = store_codes(self.load, tensor, values.shape, _type(values), self.name, by_columns)
        return Written(restored, size, tensor.format.bits, "stored", tensor.sqnr_db, BLOCK_SIZE)


def as_rows(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the values as [n, k]: an output channel or a last axis a row, or all in one row when those are short."""
    for rows in (values.reshape(len(values), -1), values.reshape(-1, values.shape[-1])):
        if values.ndim > 1 and rows.shape[1] >= SHORTEST_ROW:
            return rows
    return values.reshape(1, -1)


def as_columns(values: NDArray[np.floating]) -> NDArray[np.floating] | None:
    """Return the values as [k, n], a place on the last axis a column, or None where columns are short.

    Channels of a table of positions may differ in size by hundreds: a scale for neighbours in one row, which the
    largest of them sets, leaves nothing of the small ones.
    """
    if values.ndim < 2 or values.size < SHORTEST_ROW * values.shape[-1]:
        return None
    return values.reshape(-1, values.shape[-1])


def is_near(decoded: NDArray[np.floating], values: NDArray[np.floating]) -> bool:
    """Tell whether no value errs by more than WORST of the peak of its row and of its column, or of a vector's block.

    Rows and columns that are shorter than SHORTEST_ROW say nothing.
    """
    size = np.abs(values.reshape(-1, values.shape[-1] if values.ndim else 1))
    error = np.abs(decoded.reshape(size.shape) - values.reshape(size.shape))
    if len(size) == 1:
        padded = np.pad(np.stack([size[0], error[0]]), [(0, 0), (0, -size.size % BLOCK_SIZE)])
        peak, worst = padded.reshape(2, -1, BLOCK_SIZE).max(-1)
        return bool(np.all(worst <= WORST * peak))
    return all(
        size.shape[axis] < SHORTEST_ROW or bool(np.all(error.max(axis) <= WORST * size.max(axis))) for axis in (0, 1)
    )


def _type(values: NDArray[np.floating]) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(values.dtype))
