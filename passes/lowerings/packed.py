"""Codes that stay packed in memory: MatMulNBits and GatherBlockQuantized with scales expanded at load.

codes uint8 [n, blocks, block bytes], block scales [n, blocks]
x [..., k] -- NBitsMatMul -> [..., n]
indices [...] -- NBitsGather -> [..., k]

Codes of 5 to 7 bits are as wide as that in the file alone, and bytes in memory:

planes of codes -- Unpack -- Cast -- BitwiseXor(128) -> codes uint8 [n, blocks, block size]

Tables of which rows are looked up are int8 in memory, see `int8_tables`, where the opset decodes that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from ..formats.block import BlockFormat, BlockTensor
from ..functions import nbits
from ..graph.editor import Emitter
from ..graph.features import NOTHING, Feature, Lacks
from . import int8_tables
from .base import Apart, StoredWeight
from .dense import Dense
from .multiples import PackedWeight, store_multiples
from .operators import OPSET_BITWISE, slice_first
from .packing import in_columns, pack
from .scales import expand_scales
from .unpack import unpack

# Widths of MatMulNBits, with what they are where runtimes may lack them.
WIDTHS = {2: Feature.NBITS_2, 4: None, 8: Feature.NBITS_8}
# Widths of codes that are bytes in memory.
UNPACKED = range(5, nbits.BYTE)
# MatMulNBits takes powers of two; above 256 released runtimes compute wrong numbers without an error.
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 256
# One block for a whole column is not to be had: the kernel's fastest block at 8 bits stands for it.
WHOLE_COLUMN_BLOCK = 128
OPSET_LEAST = 7


@dataclass
class Packed:
    """Keep the codes packed, compute in the runtime's n-bit kernels.

    Attributes:
        name: packed.
        lacks: features that the runtime does not have; without a width, weights have the next.
    """

    name: str = "packed"
    lacks: Lacks = NOTHING
    best_opset: int = OPSET_LEAST
    integer_rows: ClassVar[bool] = False
    decoded_at_load: ClassVar[bool] = False
    standard_only: ClassVar[bool] = False
    batches: ClassVar[bool] = False
    apart: ClassVar[Apart] = Apart.NEVER
    block_sizes: ClassVar[tuple[int, ...]] = (0, 16, 32, 64, 128, 256)

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return the next width and power-of-two block size that the kernel takes.

        Scales are multiples of the column's, of codes that are bytes quarter octaves. Weights of more bits than there
        are have the most.
        """
        width, block = self.width(bits), kernel_block(block_size, k)
        if width < nbits.BYTE:
            return BlockFormat.multiples(width, block)
        return BlockFormat.fine(bits if bits in UNPACKED else width, block)

    def table_format(self, bits: int, block_size: int, k: int, opset: int) -> BlockFormat:
        """Return int8 rows in any width, or what a weight has where these do not unpack, without zero points.

        What rows are looked up by takes no zero points in every release.
        """
        if bits >= nbits.BYTE or opset < OPSET_BITWISE:
            return self.format(self.width(bits), block_size, k).centered
        return Dense().format(bits, int8_tables.BLOCK, k)

    def width(self, bits: int) -> int:
        """Return the next width that the kernel takes."""
        widths = [width for width, feature in WIDTHS.items() if feature not in self.lacks]
        return next((w for w in widths if w >= bits), widths[-1])

    def opset(self, bits: int) -> int:
        """Return the lowest opset: that of Pow and Cast as they always were, or of what unpacks codes."""
        return OPSET_BITWISE if self.format(bits, 0, LARGEST_BLOCK).bits in UNPACKED else OPSET_LEAST

    def table_opset(self, bits: int) -> int:
        """Return the lowest opset: a table has another format where no codes are unpacked."""
        del bits
        return OPSET_LEAST

    def store(
        self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool, only_rows: bool = False
    ) -> StoredWeight:
        """Write packed codes [n, blocks, block bytes] and the scales' expansion, or int8 rows of a table."""
        if tensor.format.whole_bytes:
            return Dense().store(load, tensor, name, by_rows, only_rows)
        if tensor.format.whole:
            return store_multiples(load, tensor, name, by_rows)
        if tensor.format.bits in UNPACKED:
            codes = in_columns(tensor.codes)
            signed, size = unpack(load, codes, tensor.format.bits, name)
            values: gs.Tensor = int8_tables.as_bytes(load, signed, f"{name}.bytes", codes.shape)
        else:
            packed = pack(tensor.codes, tensor.format, load.workers)
            values, size = load.constant(packed, f"{name}.codes"), packed.nbytes
        scale, scale_bytes = expand_scales(
            load,
            np.ascontiguousarray(tensor.exponents.T),
            tensor.column_scale[:, None],
            tensor.tensor_scale,
            tensor.format,
            name,
        )
        shape = (tensor.k, tensor.n, by_rows, tensor.tensor_scale, size + scale_bytes)
        return StoredWeight(name, values, scale, tensor.format, *shape)

    def multiply(
        self,
        at: Emitter,
        x: gs.Tensor,
        weight: StoredWeight,
        name: str,
        node: str = "",
        floor: float | None = None,
    ) -> gs.Variable:
        """Write MatMulNBits."""
        if weight.format.whole_bytes:
            return self._multiply_table(at, x, weight, name, node, floor)
        return self._multiply_packed(at, x, weight, name, node)

    def _multiply_packed(self, at: Emitter, x: gs.Tensor, weight: StoredWeight, name: str, node: str) -> gs.Variable:
        zeros = weight.zero_points if isinstance(weight, PackedWeight) else ()
        call = (x, weight.values, weight.scale, *zeros)
        function = nbits.OFFSET if zeros else nbits.MATMUL
        return at.call(function, *call, name=f"{name}.product", node=node, attrs=packed_attributes(weight))[0]

    def _multiply_table(
        self, at: Emitter, x: gs.Tensor, table: StoredWeight, name: str, node: str, floor: float | None
    ) -> gs.Variable:
        if self._has_bytes(table):
            return int8_tables.multiply(at, x, table, name, node)
        return Dense().multiply(at, x, table, name, node, floor)

    def _has_bytes(self, table: StoredWeight) -> bool:
        return int8_tables.has_bytes(table) and Feature.NBITS_8 not in self.lacks

    def lookup(self, at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str, node: str = "") -> gs.Variable:
        """Write GatherBlockQuantized, or what it computes, on the same codes, seen as [n, row bytes]; or int8 rows."""
        if table.format.whole_bytes:
            return Dense().lookup(at, table, indices, name, node)
        fmt, blocks, bits = table.format, table.format.blocks(table.k)[0], kernel_bits(table.format)
        has = at.has(Feature.GATHER_BLOCKS_2 if bits == 2 else Feature.GATHER_BLOCKS)
        attrs = {
            "rows": [table.n, -1],
            "bits": bits,
            "block_size": fmt.block_size,
            "blocks": [blocks, fmt.block_size],
            "width": [blocks * fmt.block_size],
        }
        call = (table.values, table.scale, indices)
        function = nbits.GATHER if has else nbits.UNPACKED[bits]
        (rows,) = at.call(function, *call, name=f"{name}.rows", node=node, attrs=attrs)
        return slice_first(at, rows, -1, table.k, f"{name}.unpadded") if table.k % fmt.block_size else rows


def packed_attributes(weight: StoredWeight) -> dict[str, int]:
    """Return what MatMulNBits is told of a weight."""
    fmt = weight.format
    return {"K": weight.k, "N": weight.n, "bits": kernel_bits(fmt), "block_size": fmt.block_size}


def kernel_bits(fmt: BlockFormat) -> int:
    """Return the width in memory of codes of a format."""
    return nbits.BYTE if fmt.bits in UNPACKED else fmt.bits


def kernel_block(block_size: int, k: int) -> int:
    """Return the next block size that the kernel takes for a weight of k rows; 0 asks for a whole column."""
    block = min(max(block_size or WHOLE_COLUMN_BLOCK, SMALLEST_BLOCK), LARGEST_BLOCK)
    block = 1 << (block - 1).bit_length()
    while block > SMALLEST_BLOCK and block // 2 >= k:
        block //= 2
    return block
