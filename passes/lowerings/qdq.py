"""Blockwise DequantizeLinear, standard operators only: for any ONNX runtime.

codes int8 or int4 [k, n], block scales [blocks, n] -- DequantizeLinear(axis 0, block_size) -> float [k, n]
where that is not to be had, codes int8 (of 4 bits: unpacked) -- Cast -- Reshape [blocks, block_size, n]
                               -- Mul(block scales) -- Reshape -> float [k, n]
x [..., k] -- MatMul -> [..., n]
indices [...] -- Gather(codes [rows, k]) -- Cast -- Mul(Gather(block scales), one a value) -> [..., k]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockFormat, BlockTensor, round_up
from ..formats.planes import pack_nibbles
from ..graph.editor import Emitter
from ..graph.features import OPSET_INT4, Feature
from .base import Apart, StoredWeight, TablesLikeWeights
from .operators import FLOAT, INT4, INT8, cast, reshape, slice_first
from .scales import expand_scales
from .unpack import opset_for, unpack

WIDTHS = (4, 8)
WHOLE_COLUMN_BLOCK = 128
# Mul and Pow of several shapes.
OPSET_BROADCAST = 7
# Block sizes that runtimes have kernels for.
EVEN_BLOCKS = (128, 64, 32, 16)


@dataclass
class Qdq(TablesLikeWeights):
    """Dequantize in blocks with standard operators; what the runtime makes of it is the runtime's choice."""

    name: str = "qdq"
    best_opset: int = OPSET_INT4
    integer_rows: ClassVar[bool] = False
    decoded_at_load: ClassVar[bool] = False
    standard_only: ClassVar[bool] = True
    batches: ClassVar[bool] = False
    apart: ClassVar[Apart] = Apart.NEVER
    block_sizes: ClassVar[tuple[int, ...]] = ()

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return int4 or int8 codes with quarter-octave block scales, in blocks that part k evenly where some do."""
        asked = block_size or WHOLE_COLUMN_BLOCK
        even = next((size for size in (asked, *EVEN_BLOCKS) if size <= asked and k % size == 0), asked)
        return BlockFormat.fine(next(w for w in WIDTHS if w >= bits), min(even, round_up(k)))

    def opset(self, bits: int) -> int:
        """Return the opset of operators on bits, for codes of a byte that of operators that broadcast."""
        return opset_for(bits) if bits < 8 else OPSET_BROADCAST

    def store(
        self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool, only_rows: bool = False
    ) -> StoredWeight:
        """Write codes [k, n], or [n, k] when stored by rows, and the scales' expansion."""
        # With the last block filled up: OpenVINO knows no block that is not full.
        codes = tensor.codes.reshape(-1, tensor.n)
        exponents, column_scale = tensor.exponents, tensor.column_scale
        if by_rows:
            codes, exponents, column_scale = codes.T, exponents.T, column_scale[:, None]
        fmt = tensor.format
        # Gather takes whole bytes only: the session widens a table once.
        values, size = _codes(load, np.ascontiguousarray(codes), fmt.bits, name, whole_bytes=by_rows)
        scale, scale_bytes = expand_scales(
            load, np.ascontiguousarray(exponents), column_scale, tensor.tensor_scale, fmt, name
        )
        return StoredWeight(
            name, values, scale, fmt, tensor.k, tensor.n, by_rows, tensor.tensor_scale, size + scale_bytes
        )

    def multiply(
        self, at: Emitter, x: gs.Tensor, weight: StoredWeight, name: str, node: str = "", floor: float | None = None
    ) -> gs.Variable:
        """Write DequantizeLinear and MatMul."""
        return at.op(
            "MatMul",
            x,
            at.once(("float", weight.values.name), lambda: _float(at.at_load(), weight)),
            name=f"{name}.product",
            dtype=np.float32,
        )

    def lookup(self, at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str, node: str = "") -> gs.Variable:
        """Write the gathered codes times their blocks' scales: OpenVINO refuses DequantizeLinear of unknown shapes."""
        codes = at.op("Gather", table.values, indices, name=f"{name}.codes", axis=0)
        if table.k % table.format.block_size:
            codes = slice_first(at, codes, -1, table.k, f"{name}.unpadded")
        floats = cast(at, codes, FLOAT, f"{name}.floats")
        block_of = at.constant((np.arange(table.k) // table.format.block_size).astype(np.int32), f"{name}.block_of")
        scale = at.op("Gather", table.scale, indices, name=f"{name}.scale", axis=0)
        scale = at.op("Gather", scale, block_of, name=f"{name}.scales", axis=-1)
        return at.op("Mul", floats, scale, name=f"{name}.rows", dtype=np.float32)


def _float(load: Emitter, weight: StoredWeight) -> gs.Variable:
    """Write the float [k, n] that codes stand for."""
    name, axis = weight.values.name, 1 if weight.by_rows else 0
    if not load.has(Feature.BLOCKWISE):
        matrix = _product(load, weight, name)
    else:
        block, pair = weight.format.block_size, (weight.values, weight.scale)
        matrix = load.op("DequantizeLinear", *pair, name=f"{name}.float", axis=axis, block_size=block)
    if weight.k % weight.format.block_size:
        matrix = slice_first(load, matrix, axis, weight.k, f"{name}.unpadded")
    if weight.by_rows:
        matrix = load.op("Transpose", matrix, name=f"{name}.columns", perm=[1, 0])
    return matrix


def _product(load: Emitter, weight: StoredWeight, name: str) -> gs.Variable:
    """Write what blockwise DequantizeLinear makes in operators of every opset."""
    size, n = weight.format.block_size, weight.n
    blocks = -(-weight.k // size)
    if weight.by_rows:
        parted, scales, whole = (n, blocks, size), (n, blocks, 1), (n, blocks * size)
    else:
        parted, scales, whole = (blocks, size, n), (blocks, 1, n), (blocks * size, n)
    codes = reshape(load, cast(load, weight.values, FLOAT, f"{name}.floats"), parted, f"{name}.parted")
    scale = reshape(load, weight.scale, scales, f"{name}.scales")
    return reshape(load, load.op("Mul", codes, scale, name=f"{name}.product"), whole, f"{name}.float")


def _codes(load: Emitter, codes: NDArray[np.int8], bits: int, name: str, whole_bytes: bool) -> tuple[gs.Tensor, int]:
    if bits == 8:
        return load.constant(codes, f"{name}.codes"), codes.nbytes
    if not load.has(Feature.INT4_CASTS if whole_bytes else Feature.BLOCKWISE):
        return unpack(load, codes, bits, name)
    flat = np.zeros(-(-codes.size // 2) * 2, np.uint8)
    flat[: codes.size] = codes.reshape(-1).view(np.uint8) & np.uint8(15)
    packed = pack_nibbles(flat)
    stored = load.packed(packed, INT4, codes.shape, f"{name}.codes4")
    return cast(load, stored, INT8, f"{name}.int8") if whole_bytes else stored, packed.nbytes
