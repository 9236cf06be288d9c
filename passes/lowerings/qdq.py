"""Blockwise DequantizeLinear, standard operators only: for any ONNX runtime.

codes int8 or int4 [k, n], block scales [blocks, n] -- DequantizeLinear(axis 0, block_size) -> float [k, n]
x [..., k] -- MatMul -> [..., n]
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockFormat, BlockTensor, round_up
from ..formats.planes import pack_nibbles
from ..graph.editor import Emitter
from .base import StoredWeight
from .operators import INT4, INT8, OPSET_INT4, cast
from .scales import expand_scales

WIDTHS = (4, 8)
WHOLE_COLUMN_BLOCK = 128


@dataclass
class Qdq:
    """Dequantize in blocks with standard operators; what the runtime makes of it is the runtime's choice."""

    name: str = "qdq"
    best_opset: int = OPSET_INT4
    _floats: dict[str, gs.Variable] = field(default_factory=dict)

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return int4 or int8 codes with quarter-octave block scales."""
        block = min(block_size or WHOLE_COLUMN_BLOCK, round_up(k))
        return BlockFormat.fine(next(w for w in WIDTHS if w >= bits), block)

    def opset(self, bits: int) -> int:
        """Return the opset of blockwise DequantizeLinear."""
        return OPSET_INT4

    def store(self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool) -> StoredWeight:
        """Write codes [k, n], or [n, k] when stored by rows, and the scales' expansion."""
        codes = tensor.codes.reshape(-1, tensor.n)[: tensor.k]
        exponents, column_scale = tensor.exponents, tensor.column_scale
        if by_rows:
            codes, exponents, column_scale = codes.T, exponents.T, column_scale[:, None]
        fmt = tensor.format
        values, size = _codes(load, np.ascontiguousarray(codes), fmt.bits, name)
        if by_rows and fmt.bits == 4:
            # Gather takes whole bytes only: the session widens the table once.
            values = cast(load, values, INT8, f"{name}.int8")
        scale, scale_bytes = expand_scales(
            load, np.ascontiguousarray(exponents), column_scale, tensor.tensor_scale, fmt, name
        )
        return StoredWeight(
            name, values, scale, fmt, tensor.k, tensor.n, by_rows, tensor.tensor_scale, size + scale_bytes
        )

    def multiply(
        self, at: Emitter, x: gs.Tensor, weight: StoredWeight, name: str, floor: float | None = None
    ) -> gs.Variable:
        """Write DequantizeLinear and MatMul."""
        return at.op("MatMul", x, self._float(at, weight), name=f"{name}.product", dtype=np.float32)

    def lookup(self, at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str) -> gs.Variable:
        """Write DequantizeLinear of the gathered codes and scales."""
        codes = at.op("Gather", table.values, indices, name=f"{name}.codes", axis=0)
        scale = at.op("Gather", table.scale, indices, name=f"{name}.scale", axis=0)
        block = table.format.block_size
        return at.op("DequantizeLinear", codes, scale, name=f"{name}.rows", dtype=np.float32, axis=-1, block_size=block)

    def _float(self, at: Emitter, weight: StoredWeight) -> gs.Variable:
        name = weight.values.name
        if name not in self._floats:
            load, axis = at.at_load(), 1 if weight.by_rows else 0
            block = weight.format.block_size
            matrix = load.op(
                "DequantizeLinear",
                weight.values,
                weight.scale,
                name=f"{name}.float",
                axis=axis,
                block_size=block,
            )
            if weight.by_rows:
                matrix = load.op("Transpose", matrix, name=f"{name}.columns", perm=[1, 0])
            self._floats[name] = matrix
        return self._floats[name]


def _codes(load: Emitter, codes: NDArray[np.int8], bits: int, name: str) -> tuple[gs.Tensor, int]:
    if bits == 8:
        return load.constant(codes, f"{name}.codes"), codes.nbytes
    flat = np.zeros(-(-codes.size // 2) * 2, np.uint8)
    flat[: codes.size] = codes.reshape(-1).view(np.uint8) & np.uint8(15)
    packed = pack_nibbles(flat)
    return load.packed(packed, INT4, codes.shape, f"{name}.codes4"), packed.nbytes
