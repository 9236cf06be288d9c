"""Codes in the file, int8 in memory: decoded when the session is made, multiplied with row-wise int8 activations.

codes, shifts -- DecodeBlocks -> int8 [k, n]        (once, at load)
x [..., k] -- QuantizeRows -> q, row scale          (shared by all readers of x)
q, row scale, int8, column scale -- BlockMatMul -> [..., n]

Sums longer than an int32 holds are computed in parts of k, which are added up as floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from ..formats.block import BlockFormat, BlockTensor, round_up
from ..functions import block_gather, block_matmul
from ..functions.quantize_rows import LONGEST_SUM
from ..graph.editor import Emitter
from ..graph.features import OPSET_INT4
from . import packed_rows
from .base import Apart, StoredWeight, TablesLikeWeights
from .operators import OPSET_QUANTIZE, slice_between, slice_first
from .rowwise import RowQuantizer
from .scales import scale_constant
from .unpack import BYTE, decode_blocks, decode_codes, opset_for, planes, trellis_planes


@dataclass
class Dense(TablesLikeWeights):
    """Decode at load, compute in int8.

    Attributes:
        name: dense.
        most_bits: width of the widest weights, decoded: 8; or 7 for processors that add up two products in 16 bits,
            which overflow with 8 (x86 before VNNI).
    """

    name: str = "dense"
    most_bits: int = 8
    best_opset: int = OPSET_INT4
    integer_rows: ClassVar[bool] = True
    decoded_at_load: ClassVar[bool] = True
    standard_only: ClassVar[bool] = False
    batches: ClassVar[bool] = True
    apart: ClassVar[Apart] = Apart.WHERE_WIDTHS_DIFFER
    block_sizes: ClassVar[tuple[int, ...]] = ()

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return codes whose shifted values fit the widest weight; codes of that width leave one block per column."""
        bits = min(bits, self.most_bits)
        block = 0 if bits == self.most_bits else min(block_size, round_up(k))
        # A trellis' levels, doubled by a shift, need a whole byte.
        return BlockFormat.best(bits, block) if self.most_bits == BYTE else BlockFormat.shifted(bits, block)

    def opset(self, bits: int) -> int:
        """Return the opset of operators on bits, or of QuantizeLinear for whole bytes."""
        return max(OPSET_QUANTIZE, opset_for(bits))

    def store(
        self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool, only_rows: bool = False
    ) -> StoredWeight:
        """Write the codes and their decoding to int8 [k, n] or, by rows, [n, k]; large tables stay packed."""
        if only_rows and tensor.format.bits < BYTE and tensor.codes.size >= packed_rows.SMALLEST_CODES:
            return packed_rows.store_rows(load, tensor, name)
        values, size = self._values(load, tensor, name, by_rows)
        return StoredWeight(
            name=name,
            values=values,
            scale=scale_constant(load, tensor.column_scale, name),
            format=tensor.format,
            k=tensor.k,
            n=tensor.n,
            by_rows=by_rows,
            tensor_scale=tensor.tensor_scale,
            bytes=size + tensor.column_scale.nbytes,
        )

    def multiply(
        self,
        at: Emitter,
        x: gs.Tensor,
        weight: StoredWeight,
        name: str,
        node: str = "",
        floor: float | None = None,
    ) -> gs.Variable:
        """Write the integer multiplication of a row-wise quantized x."""
        rows = at.once(RowQuantizer, RowQuantizer).quantize(at, x, weight.k, floor)
        columns = self.columns(at, weight)
        attrs = {"zero_point": rows.zero_point, "tensor_scale": weight.tensor_scale}
        if weight.k <= LONGEST_SUM:
            call = (rows.q, rows.scale, columns, weight.scale)
            return at.call(block_matmul.INT8, *call, name=f"{name}.product", node=node, attrs=attrs)[0]
        products = [
            at.call(
                block_matmul.INT8,
                slice_between(at, rows.q, -1, start, min(start + LONGEST_SUM, weight.k), f"{rows.q.name}.part"),
                rows.scale,
                slice_between(at.at_load(), columns, -2, start, min(start + LONGEST_SUM, weight.k), f"{name}.part"),
                weight.scale,
                name=f"{name}.product",
                attrs=attrs,
            )[0]
            for start in range(0, weight.k, LONGEST_SUM)
        ]
        return at.op("Sum", *products, name=f"{name}.sum", dtype=np.float32)

    def lookup(self, at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str, node: str = "") -> gs.Variable:
        """Write the gathered int8 rows times their gathered scales."""
        if table.planes:
            return packed_rows.lookup_rows(at, table, indices, name, node)
        attrs = {"tensor_scale": table.tensor_scale}
        call = (table.values, table.scale, indices)
        return at.call(block_gather.INT8, *call, name=f"{name}.rows", node=node, attrs=attrs)[0]

    def _values(self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool) -> tuple[gs.Tensor, int]:
        codes, exponents = tensor.codes, tensor.exponents[:, None, :]
        if by_rows:
            codes, exponents = codes.transpose(2, 0, 1), tensor.exponents.T[:, :, None]
        axis, padded = (1, (tensor.n, -1)) if by_rows else (0, (-1, tensor.n))
        bits = tensor.format.bits
        if bits == 8:
            matrix = codes.reshape(padded)
            matrix = matrix[:, : tensor.k] if by_rows else matrix[: tensor.k]
            return load.constant(np.ascontiguousarray(matrix), f"{name}.codes"), matrix.nbytes
        codes = np.ascontiguousarray(codes)
        matrix = codes.reshape(padded)
        shape = codes.shape if tensor.format.max_exponent else matrix.shape
        if tensor.format.trellis:
            stored = trellis_planes(load, matrix, bits, name, by_rows)
        else:
            stored = planes(load, codes.reshape(shape), bits, name)
        if tensor.format.max_exponent:
            values, size = decode_blocks(load, stored, shape, exponents, padded, name)
        else:
            values, size = decode_codes(load, stored, shape, name)
        if codes.size != tensor.k * tensor.n:
            values = slice_first(load, values, axis, tensor.k, f"{name}.unpadded")
        return values, size

    def columns(self, at: Emitter, weight: StoredWeight) -> gs.Tensor:
        """Return a weight as int8 [k, n], turned once where it lies by rows."""
        if not weight.by_rows:
            return weight.values
        values, name = weight.values, weight.values.name
        return at.once(
            ("columns", name), lambda: at.at_load().op("Transpose", values, name=f"{name}.columns", perm=[1, 0])
        )
