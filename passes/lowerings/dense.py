"""Codes in the file, int8 in memory: decoded when the session is made, multiplied with row-wise int8 activations.

codes, shifts -- unpack, BitShift, Cast(int8), Reshape -> int8 [k, n]          (once, at load)
x [..., k] -- RowQuantizer -> q, r                                            (shared by all readers of x)
q -- MatMulIntegerToFloat(int8 [k, n], column scale [n]) -- Mul(r) -> [..., n]

Sums longer than an int32 holds are computed in parts of k, which are added up as floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from ..formats.block import BlockFormat, BlockTensor, round_up
from ..graph.editor import Emitter
from ..graph.features import OPSET_INT4
from .base import StoredWeight
from .operators import FLOAT, OPSET_QUANTIZE, cast, keep_between, keep_first, reshape
from .rowwise import LONGEST_SUM, RowQuantizer
from .scales import float_scale
from .unpack import as_int8, opset_for, shift_blocks, unpack


@dataclass
class Dense:
    """Decode at load, compute in int8.

    Attributes:
        name: dense.
        most_bits: width of the widest weights, decoded: 8; or 7 for processors that add up two products in 16 bits,
            which overflow with 8 (x86 before VNNI).
    """

    name: str = "dense"
    most_bits: int = 8
    best_opset: int = OPSET_INT4
    _quantizer: RowQuantizer = field(default_factory=RowQuantizer)
    _transposed: dict[str, gs.Variable] = field(default_factory=dict)

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return codes whose shifted values fit the widest weight; codes of that width leave one block per column."""
        bits = min(bits, self.most_bits)
        return BlockFormat.shifted(bits, 0 if bits == self.most_bits else min(block_size, round_up(k)))

    def opset(self, bits: int) -> int:
        """Return the opset of operators on bits, or of QuantizeLinear for whole bytes."""
        return max(OPSET_QUANTIZE, opset_for(bits))

    def store(self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool) -> StoredWeight:
        """Write the codes and their decoding to int8 [k, n], or [n, k] when stored by rows."""
        values, size = self._values(load, tensor, name, by_rows)
        return StoredWeight(
            name=name,
            values=values,
            scale=float_scale(load, tensor.column_scale, f"{name}.scale16", f"{name}.scale"),
            format=tensor.format,
            k=tensor.k,
            n=tensor.n,
            by_rows=by_rows,
            tensor_scale=tensor.tensor_scale,
            bytes=size + tensor.column_scale.nbytes,
        )

    def multiply(
        self, at: Emitter, x: gs.Tensor, weight: StoredWeight, name: str, floor: float | None = None
    ) -> gs.Variable:
        """Write the integer multiplication of a row-wise quantized x."""
        rows = self._quantizer.quantize(at, x, weight.k, floor)
        columns = self._columns(at, weight)
        products = [
            at.op(
                "MatMulIntegerToFloat",
                part(at, rows.q, -1),
                part(at.at_load(), columns, -2),
                at.constant(np.array(weight.tensor_scale, np.float32), "tensor_scale"),
                weight.scale,
                rows.zero_point,
                name=f"{name}.product",
                domain="com.microsoft",
            )
            for part in _parts(weight.k)
        ]
        product = products[0] if len(products) == 1 else at.op("Sum", *products, name=f"{name}.sum")
        return at.op("Mul", product, rows.scale, name=f"{name}.scaled", dtype=np.float32)

    def lookup(self, at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str) -> gs.Variable:
        """Write the gathered int8 rows times their gathered scales."""
        rows = cast(at, at.op("Gather", table.values, indices, name=f"{name}.codes", axis=0), FLOAT, f"{name}.steps")
        load = at.at_load()
        column = reshape(load, table.scale, (-1, 1), f"{table.scale.name}.column")
        column = load.op(
            "Mul",
            column,
            load.constant(np.array(table.tensor_scale, np.float32), "tensor_scale"),
            name=f"{name}.scales",
        )
        scale = at.op("Gather", column, indices, name=f"{name}.scale", axis=0)
        return at.op("Mul", rows, scale, name=f"{name}.rows", dtype=np.float32)

    def _values(self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool) -> tuple[gs.Tensor, int]:
        codes, exponents = tensor.codes, tensor.exponents[:, None, :]
        if by_rows:
            codes, exponents = codes.transpose(2, 0, 1), tensor.exponents.T[:, :, None]
        axis, padded = (1, (tensor.n, -1)) if by_rows else (0, (-1, tensor.n))
        bits = tensor.format.bits
        if bits == 8:
            matrix = codes.reshape(padded)
            return unpack(load, matrix[:, : tensor.k] if by_rows else matrix[: tensor.k], bits, name)
        values, size = unpack(load, np.ascontiguousarray(codes), bits, name)
        if tensor.format.max_exponent:
            values, shift_bytes = shift_blocks(load, values, exponents, tensor.format.max_exponent, name)
            size += shift_bytes
        values = reshape(load, as_int8(load, values, bits, name), padded, f"{name}.matrix")
        if codes.size != tensor.k * tensor.n:
            values = keep_first(load, values, axis, tensor.k, f"{name}.unpadded")
        return values, size

    def _columns(self, at: Emitter, weight: StoredWeight) -> gs.Tensor:
        if not weight.by_rows:
            return weight.values
        name = weight.values.name
        if name not in self._transposed:
            self._transposed[name] = at.at_load().op("Transpose", weight.values, name=f"{name}.columns", perm=[1, 0])
        return self._transposed[name]


def _parts(k: int) -> list[Callable[[Emitter, gs.Tensor, int], gs.Tensor]]:
    """Return what takes each part, along an axis of length k, whose sums an int32 holds."""
    if k <= LONGEST_SUM:
        return [lambda at, x, axis: x]  # noqa: ARG005 (the whole)
    return [
        lambda at, x, axis, start=start: keep_between(  # type: ignore[misc]
            at, x, axis, start, min(start + LONGEST_SUM, k), f"{x.name}.part"
        )
        for start in range(0, k, LONGEST_SUM)
    ]
