"""One set of codes, two forms: int8 for many rows, packed codes for few; a branch in every product chooses.

x [..., k] -- Size -- Greater -> many                           (shared by all products of as many rows)
x, many, codes uint8 [n, blocks, block bytes], multiples [n, blocks], column scale [n] -- BothMatMul -> [..., n]

With zero points uint8 [n, blocks / 2] codes are decoded apart, once, at load:

codes, multiples, zero points -- DecodeOffsets -> int8 [k, n]
multiples, column scale -- MultipleScales -> block scales [n, blocks]
x, many, int8, column scale, codes, block scales, zero points -- BothMatMulOffset -> [..., n]

Where it is known beforehand how many rows there are (sizes are fixed; a branch of the model's own is for one token, the
other for the prompt) the product has one form and no branch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockFormat, BlockTensor
from ..formats.planes import pack_nibbles
from ..functions import both_matmul, decode_multiples, nbits, quantize_rows
from ..functions.function import Function
from ..graph.editor import Emitter
from ..graph.features import OPSET_INT4, Feature
from ..graph.origin import Origins
from ..graph.phases import Phase
from ..graph.shapes import product, rank
from .base import StoredWeight
from .dense import Dense
from .operators import OPSET_BITWISE, slice_first
from .packed import Packed, pack, packed_attributes
from .scales import scale_constant
from .unpack import BYTE, now, store_nibbles

# The most rows that are multiplied with packed codes, by width: with one more, int8 takes as long, measured on x86
# with VNNI and two threads for weights of 576 x 1536 to 2048 x 8192. int8 takes about as long for 1 as for 32 rows.
MOST_ROWS = {2: 2, 4: 4, 8: 2}
# What a zero point of zero is among codes that count from zero.
MIDDLE = 8
# Blocks that a column with one scale is cut into for the kernel.
BLOCKS = (128, 64, 32, 16)


@dataclass(frozen=True)
class BothWeight(StoredWeight):
    """A weight in the graph whose `values` are packed codes, and whose `scale` is that of blocks.

    Attributes:
        multiples: what scales of blocks are multiples of their column's, [n, blocks], or None where they are equal.
        column_scale: scales of columns, [n].
        zeros: zero points of blocks, uint8 [n, blocks / 2], or None.
    """

    multiples: gs.Tensor | None = None
    column_scale: gs.Tensor | None = None
    zeros: gs.Tensor | None = None


@dataclass
class Both(Packed):
    """Decode at load for many rows, keep the codes packed for few."""

    name: str = "both"
    best_opset: int = OPSET_INT4
    integer_rows: ClassVar[bool] = True

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return what packed weights have, with scales that leave int8 numbers: multiples, or one a column."""
        packed = super().format(bits, block_size, k)
        return BlockFormat.multiples(packed.bits, packed.block_size)

    def opset(self, bits: int) -> int:
        """Return the lowest opset: that of the operators on bits that decode."""
        return OPSET_BITWISE

    def store(
        self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool, only_rows: bool = False
    ) -> BothWeight:
        """Write packed codes [n, blocks, block bytes], and what makes scales of blocks."""
        block = tensor.format.block_size or _even_block(tensor.k)
        fmt = replace(tensor.format, block_size=block)
        codes = pack(_in_blocks(tensor, fmt), fmt, load.workers)
        stored = load.constant(codes, f"{name}.codes")
        column, size = scale_constant(load, tensor.column_scale, name), codes.nbytes + tensor.column_scale.nbytes
        attrs = {"tensor_scale": tensor.tensor_scale, "blocks": list(codes.shape[:2])}
        if fmt.max_exponent:
            multiples, bytes_ = store_nibbles(load, np.ascontiguousarray(tensor.exponents.T) + 1, f"{name}.multiples")
            size, scales = size + bytes_, decode_multiples.MULTIPLE_SCALES
        else:
            multiples, scales = None, decode_multiples.COLUMN_SCALES
        inputs = (column,) if multiples is None else (multiples, column)
        (scale,) = load.call(scales, *inputs, name=f"{name}.block_scale", attrs=attrs)
        zeros = None if tensor.zeros is None else load.constant(pack_zeros(tensor.zeros), f"{name}.zeros")
        size += 0 if zeros is None else zeros.values.nbytes
        shape = (tensor.k, tensor.n, by_rows, tensor.tensor_scale, size)
        return BothWeight(name, stored, scale, fmt, *shape, multiples=multiples, column_scale=column, zeros=zeros)

    def multiply(
        self, at: Emitter, x: gs.Tensor, weight: StoredWeight, name: str, node: str = "", floor: float | None = None
    ) -> gs.Variable:
        """Write a branch by the number of rows, or the form of the number that it has in every run."""
        assert isinstance(weight, BothWeight)
        assert weight.column_scale is not None
        many = at.once(RowCount, RowCount).exceeds(at, x, weight.k, MOST_ROWS[weight.format.bits])
        if weight.k > quantize_rows.LONGEST_SUM or many is False:
            return self._multiply_packed(at, x, weight, name, node)
        values = partial(at.once, ("int8", weight.values.name), lambda: _decode(at.at_load(), weight))
        if many is True:
            dense = replace(weight, values=values(), scale=weight.column_scale, by_rows=False)
            return Dense().multiply(at, x, dense, name, node, floor)
        # A vector has no axis of rows to give a scale each.
        blockwise = at.has(Feature.BLOCKWISE) and rank(x) is not None
        call: tuple[gs.Tensor | gs.Variable | bool, ...]
        if weight.zeros is None:
            function = both_matmul.BY_ROWS[weight.format.bits, floor is not None, blockwise]
            call = (x, many, *_decoding(at.at_load(), weight), weight.column_scale)
        else:
            function = both_matmul.OFFSET[floor is not None, blockwise]
            call = (x, many, values(), weight.column_scale, weight.values, weight.scale, weight.zeros)
        attrs = {**quantize_rows.attributes(floor), **packed_attributes(weight), **_decoded(weight)}
        attrs |= {"tensor_scale": weight.tensor_scale}
        return at.call(function, *call, name=f"{name}.product", node=node, attrs=attrs)[0]

    def _multiply_packed(self, at: Emitter, x: gs.Tensor, weight: BothWeight, name: str, node: str) -> gs.Variable:
        function = nbits.MATMUL if weight.zeros is None else nbits.OFFSET
        call = (x, weight.values, weight.scale, *_zeros(weight))
        return at.call(function, *call, name=f"{name}.product", node=node, attrs=packed_attributes(weight))[0]


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


def _even_block(k: int) -> int:
    """Return the block size of the kernel that leaves the least padding behind k rows, the largest of those."""
    return min(BLOCKS, key=lambda block: (-(-k // block) * block, -block))


def _zeros(weight: BothWeight) -> tuple[gs.Tensor, ...]:
    return () if weight.zeros is None else (weight.zeros,)


def pack_zeros(zeros: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return zero points [blocks, n] as MatMulNBits has them, uint8 [n, blocks / 2]: around 8, the first lowest."""
    blocks, n = zeros.shape
    padded = np.zeros((n, blocks + blocks % 2), np.uint8)
    padded[:, :blocks] = zeros.T + np.int8(MIDDLE)
    return pack_nibbles(padded.reshape(-1)).reshape(n, -1)


def _in_blocks(tensor: BlockTensor, fmt: BlockFormat) -> NDArray[np.int8]:
    """Return the codes in blocks of a format, int8 [blocks, block size, n], with zeros behind the last."""
    blocks, rows = fmt.blocks(tensor.k)
    if tensor.codes.shape[:2] == (blocks, rows):
        return tensor.codes
    codes = np.zeros((blocks * rows, tensor.n), np.int8)
    codes[: tensor.k] = tensor.codes.reshape(-1, tensor.n)[: tensor.k]
    return codes.reshape(blocks, rows, tensor.n)


def _decode(load: Emitter, weight: BothWeight) -> gs.Variable:
    """Write the int8 [k, n] of packed codes."""
    blocks, size = weight.format.blocks(weight.k)
    function = decode_multiples.MULTIPLES if weight.zeros is None else decode_multiples.OFFSETS
    function = decode_multiples.BYTES if weight.multiples is None else function
    attrs = {**_decoded(weight), "count": [blocks]}
    (values,) = load.call(function, *_decoding(load, weight), name=f"{weight.name}.int8", attrs=attrs)
    return slice_first(load, values, 0, weight.k, f"{weight.name}.unpadded") if blocks * size > weight.k else values


def _decoded(weight: BothWeight) -> dict[str, list[int]]:
    """Return the attributes of what decodes a weight, and of its scales: sizes."""
    blocks, size = weight.format.blocks(weight.k)
    return {"matrix": [blocks * size, weight.n], "depth": [weight.k], "blocks": [weight.n, blocks]}


def _decoding(load: Emitter, weight: BothWeight) -> tuple[gs.Tensor, ...]:
    """Return the inputs of what decodes a weight. All its readers wait for one turn, so that it is decoded once."""
    turn = load.once(("turn", weight.values.name), lambda: now(load))
    if weight.multiples is None:
        return (weight.values, turn)
    table, zeros = decode_multiples.TABLES[weight.format.bits], 1
    if weight.zeros is not None:
        table, zeros = decode_multiples.OFFSET_TABLE, decode_multiples.ZEROS
    made = _table(load, table, weight.format.bits, zeros)
    return (weight.values, *_zeros(weight), weight.multiples, made, _spread(load, weight), turn)


def _spread(load: Emitter, weight: BothWeight) -> gs.Constant:
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
