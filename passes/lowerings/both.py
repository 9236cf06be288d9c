"""One set of codes, two forms: int8 for many rows, packed codes for few; a branch in every product chooses.

x [..., k] -- Size -- Greater -> many                           (shared by all products of as many rows)
x, many, codes uint8 [n, blocks, block bytes], multiples [n, blocks], column scale [n] -- BothMatMul -> [..., n]

Blocks may have zero points, uint8 [n, blocks / 2], too. A table of which rows are looked up is int8 [n, k] in memory:

x, many, table int8 [n, k], column scale [n] -- BothMatMulTable -> [..., n]

Where it is known beforehand how many rows there are (sizes are fixed; a branch of the model's own is for one token, the
other for the prompt) the product has one form and no branch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from ..formats.block import BlockFormat
from ..functions import both_matmul, decode_multiples, nbits, quantize_rows
from ..functions.function import Function
from ..graph.editor import Emitter
from ..graph.features import OPSET_INT4, Feature
from ..graph.origin import Origins
from ..graph.phases import Phase
from ..graph.shapes import product, rank
from . import int8_tables
from .base import StoredWeight
from .dense import Dense
from .multiples import PackedWeight
from .operators import OPSET_BITWISE, slice_first
from .packed import Packed, kernel_block, packed_attributes
from .unpack import BYTE, now

# The most rows that are multiplied with packed codes, by width: with one more, int8 takes as long, measured on x86
# with VNNI and two threads for weights of 576 x 1536 to 2048 x 8192. int8 takes about as long for 1 as for 32 rows.
MOST_ROWS = {2: 2, 4: 4, 8: 2}


@dataclass
class Both(Packed):
    """Decode at load for many rows, keep the codes packed for few."""

    name: str = "both"
    best_opset: int = OPSET_INT4
    integer_rows: ClassVar[bool] = True

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return what packed weights have, with scales that leave int8 numbers: multiples, or one a column."""
        return BlockFormat.multiples(self.width(bits), kernel_block(block_size, k))

    def opset(self, bits: int) -> int:
        """Return the lowest opset: that of the operators on bits that decode."""
        return OPSET_BITWISE

    def multiply(
        self, at: Emitter, x: gs.Tensor, weight: StoredWeight, name: str, node: str = "", floor: float | None = None
    ) -> gs.Variable:
        """Write a branch by the number of rows, or the form of the number that it has in every run."""
        if weight.format.whole_bytes:
            return self._multiply_table(at, x, weight, name, node, floor)
        assert isinstance(weight, PackedWeight)
        assert weight.column_scale is not None
        many = at.once(RowCount, RowCount).exceeds(at, x, weight.k, MOST_ROWS[weight.format.bits])
        if weight.k > quantize_rows.LONGEST_SUM or many is False:
            return self._multiply_packed(at, x, weight, name, node)
        if many is True:
            values = at.once(("int8", weight.values.name), lambda: _decode(at.at_load(), weight))
            dense = replace(weight, values=values, scale=weight.column_scale, by_rows=False)
            return Dense().multiply(at, x, dense, name, node, floor)
        # A vector has no axis of rows to give a scale each.
        blockwise = at.has(Feature.BLOCKWISE) and rank(x) is not None
        ways = (floor is not None, blockwise)
        function = both_matmul.BY_ROWS[weight.format.bits, *ways] if weight.zeros is None else both_matmul.OFFSET[ways]
        call = (x, many, *_decoding(at.at_load(), weight), weight.column_scale)
        attrs = {**quantize_rows.attributes(floor), **packed_attributes(weight), **_decoded(weight)}
        attrs |= {"tensor_scale": weight.tensor_scale}
        return at.call(function, *call, name=f"{name}.product", node=node, attrs=attrs)[0]

    def _multiply_table(
        self, at: Emitter, x: gs.Tensor, table: StoredWeight, name: str, node: str, floor: float | None
    ) -> gs.Variable:
        many = at.once(RowCount, RowCount).exceeds(at, x, table.k, MOST_ROWS[nbits.BYTE])
        if many is True or not self._has_bytes(table):
            return Dense().multiply(at, x, table, name, node, floor)
        if table.k > quantize_rows.LONGEST_SUM or many is False:
            return int8_tables.multiply(at, x, table, name, node)
        blockwise = at.has(Feature.BLOCKWISE) and rank(x) is not None
        attrs = {**quantize_rows.attributes(floor), **int8_tables.attributes(table)}
        function = both_matmul.TABLE[floor is not None, blockwise]
        return at.call(function, x, many, table.values, table.scale, name=f"{name}.product", node=node, attrs=attrs)[0]


class RowCount:
    """Writes whether an activation has more rows than so many, once for all that have as many."""

    def __init__(self) -> None:
        """Begin with nothing written."""
        self._written: dict[tuple[object, ...], gs.Variable] = {}
        self._origins = Origins()

    def exceeds(self, at: Emitter, x: gs.Tensor, k: int, most: int) -> gs.Variable | bool:
        """Return whether x [..., k] has more than `most` rows, as a scalar of the graph where that differs by run."""
        if at.phase is not None:
            return at.phase is Phase.FIRST
        shape = at.proven_shape(x)
        rows = None if shape is None else product(shape[:-1]).static
        if rows is not None:
            return rows > most
        key = (self._origins.find(x).name if shape is None else shape[:-1], at.scope, most)
        if key not in self._written:
            size = at.op("Size", x, name="elements", dtype=np.int64)
            limit = at.constant(np.array(most * k, np.int64), "few")
            self._written[key] = at.op("Greater", size, limit, name="many", dtype=np.bool_)
        return self._written[key]


def _decode(load: Emitter, weight: PackedWeight) -> gs.Variable:
    """Write the int8 [k, n] of packed codes."""
    blocks, size = weight.format.blocks(weight.k)
    function = decode_multiples.MULTIPLES if weight.zeros is None else decode_multiples.OFFSETS
    function = decode_multiples.BYTES if weight.multiples is None else function
    inputs = _decoding(load, weight)
    (values,) = load.call(function, *inputs, name=f"{weight.name}.int8", attrs=_decoded(weight))
    return slice_first(load, values, 0, weight.k, f"{weight.name}.unpadded") if blocks * size > weight.k else values


def _decoded(weight: PackedWeight) -> dict[str, list[int]]:
    """Return the attributes of what decodes a weight, and of its scales: sizes."""
    blocks, size = weight.format.blocks(weight.k)
    sizes = {"matrix": [blocks * size, weight.n], "depth": [weight.k], "blocks": [weight.n, blocks]}
    return {**sizes, "count": [blocks]}


def _decoding(load: Emitter, weight: PackedWeight) -> tuple[gs.Tensor, ...]:
    """Return the inputs of what decodes a weight. All its readers wait for one turn, so that it is decoded once."""
    turn = load.once(("turn", weight.values.name), lambda: now(load))
    if weight.multiples is None:
        return (weight.values, turn)
    table, zeros = decode_multiples.TABLES[weight.format.bits], 1
    if weight.zeros is not None:
        table, zeros = decode_multiples.OFFSET_TABLE, decode_multiples.ZEROS
    made = _table(load, table, weight.format.bits, zeros)
    return (weight.values, *weight.zero_points, weight.multiples, made, _spread(load, weight), turn)


def _spread(load: Emitter, weight: PackedWeight) -> gs.Constant:
    """Return what makes places in the table of blocks of codes, written once for a size."""
    size, zeros = weight.format.block_size * weight.format.bits // BYTE, weight.zeros is not None
    name = f"spread{size}{'.zeros' if zeros else ''}"
    return load.once(("spread", size, zeros), lambda: load.constant(decode_multiples.spread(size, zeros), name))


def _table(load: Emitter, table: Function, bits: int, zeros: int = 1) -> gs.Variable:
    """Return what bytes of codes stand for, with every multiple and zero point, written once."""
    factors = np.arange(decode_multiples.FACTORS, dtype=np.int32)
    attrs = {"table": [zeros * len(factors) << BYTE, BYTE // bits]}

    def make() -> gs.Variable:
        return load.call(table, load.constant(factors, "factors"), name=f"{table.name}.table", attrs=attrs)[0]

    return load.once(table.name, make)
