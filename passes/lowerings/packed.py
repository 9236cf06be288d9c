"""Codes that stay packed in memory: MatMulNBits and GatherBlockQuantized with scales expanded at load.

codes uint8 [n, blocks, block bytes], block scales [n, blocks]
x [..., k] -- NBitsMatMul -> [..., n]
indices [...] -- NBitsGather -> [..., k]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockFormat, BlockTensor
from ..formats.planes import pack_nibbles
from ..formats.threads import over_ranges
from ..functions import nbits
from ..graph.editor import Emitter
from ..graph.features import NOTHING, Feature, Lacks
from .base import Apart, StoredWeight
from .operators import slice_first
from .scales import expand_scales

# Widths of MatMulNBits, with what they are where runtimes may lack them.
WIDTHS = {2: Feature.NBITS_2, 4: None, 8: Feature.NBITS_8}
# MatMulNBits takes powers of two; above 256 released runtimes compute wrong numbers without an error.
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 256
# One block for a whole column is not to be had: the kernel's fastest block at 8 bits stands for it.
WHOLE_COLUMN_BLOCK = 128
# Columns that a thread packs at a time: a row's part is two lines of a cache, all of them stay in the second level.
COLUMNS = 128


@dataclass
class Packed:
    """Keep the codes packed, compute in the runtime's n-bit kernels.

    Attributes:
        name: packed.
        lacks: features that the runtime does not have; without a width, weights have the next.
    """

    name: str = "packed"
    lacks: Lacks = NOTHING
    best_opset: int = 7
    integer_rows: ClassVar[bool] = False
    decoded_at_load: ClassVar[bool] = False
    standard_only: ClassVar[bool] = False
    batches: ClassVar[bool] = False
    apart: ClassVar[Apart] = Apart.NEVER
    block_sizes: ClassVar[tuple[int, ...]] = (0, 16, 32, 64, 128, 256)

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return the next width and power-of-two block size that the kernel takes, with quarter-octave scales.

        Weights of more bits than there are have the most.
        """
        widths = [width for width, feature in WIDTHS.items() if feature not in self.lacks]
        width = next((w for w in widths if w >= bits), widths[-1])
        return BlockFormat.fine(width, kernel_block(block_size, k))

    def opset(self, bits: int) -> int:
        """Return the lowest opset: its operators are the runtime's own, and Pow and Cast as they always were."""
        return 7

    def store(
        self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool, only_rows: bool = False
    ) -> StoredWeight:
        """Write packed codes [n, blocks, block bytes] and the scales' expansion."""
        packed = pack(tensor.codes, tensor.format, load.workers)
        scale, scale_bytes = expand_scales(
            load,
            np.ascontiguousarray(tensor.exponents.T),
            tensor.column_scale[:, None],
            tensor.tensor_scale,
            tensor.format,
            name,
        )
        size, values = packed.nbytes + scale_bytes, load.constant(packed, f"{name}.codes")
        return StoredWeight(name, values, scale, tensor.format, tensor.k, tensor.n, by_rows, tensor.tensor_scale, size)

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
        call = (x, weight.values, weight.scale)
        return at.call(nbits.MATMUL, *call, name=f"{name}.product", node=node, attrs=packed_attributes(weight))[0]

    def lookup(self, at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str, node: str = "") -> gs.Variable:
        """Write GatherBlockQuantized, or what it computes, on the same codes, seen as [n, row bytes]."""
        fmt, blocks = table.format, table.format.blocks(table.k)[0]
        has = at.has(Feature.GATHER_BLOCKS_2 if fmt.bits == 2 else Feature.GATHER_BLOCKS)
        attrs = {
            "rows": [table.n, -1],
            "bits": fmt.bits,
            "block_size": fmt.block_size,
            "blocks": [blocks, fmt.block_size],
            "width": [blocks * fmt.block_size],
        }
        call = (table.values, table.scale, indices)
        function = nbits.GATHER if has else nbits.UNPACKED[fmt.bits]
        (rows,) = at.call(function, *call, name=f"{name}.rows", node=node, attrs=attrs)
        return slice_first(at, rows, -1, table.k, f"{name}.unpadded") if table.k % fmt.block_size else rows


def packed_attributes(weight: StoredWeight) -> dict[str, int]:
    """Return what MatMulNBits is told of a weight."""
    fmt = weight.format
    return {"K": weight.k, "N": weight.n, "bits": fmt.bits, "block_size": fmt.block_size}


def kernel_block(block_size: int, k: int) -> int:
    """Return the next block size that the kernel takes for a weight of k rows; 0 asks for a whole column."""
    block = min(max(block_size or WHOLE_COLUMN_BLOCK, SMALLEST_BLOCK), LARGEST_BLOCK)
    block = 1 << (block - 1).bit_length()
    while block > SMALLEST_BLOCK and block // 2 >= k:
        block //= 2
    return block


def pack(codes: NDArray[np.int8], fmt: BlockFormat, workers: int) -> NDArray[np.uint8]:
    """Return codes [blocks, rows, n] as [n, blocks, block bytes], around 2^(bits-1), the first of a byte lowest."""
    blocks, rows, n = codes.shape
    packed = np.empty((n, blocks, rows * fmt.bits // 8), np.uint8)

    def pack_range(columns: slice) -> None:
        packed[columns] = _pack_columns(np.ascontiguousarray(codes[:, :, columns].transpose(2, 0, 1)), fmt)

    over_ranges(pack_range, n, COLUMNS, workers)
    return packed


def _pack_columns(codes: NDArray[np.int8], fmt: BlockFormat) -> NDArray[np.uint8]:
    """Return [n, blocks, block bytes] of codes [n, blocks, rows]."""
    unsigned = (codes.view(np.uint8) + np.uint8(-fmt.low)) & np.uint8((1 << fmt.bits) - 1)
    shape = codes.shape[:2]
    if fmt.bits == 8:
        return unsigned
    if fmt.bits == 4:
        return pack_nibbles(unsigned.reshape(-1)).reshape(*shape, -1)
    return pack_nibbles(pack_pairs(unsigned.reshape(-1))).reshape(*shape, -1)


def pack_pairs(pieces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return [m] values below 4 as [m / 2] values below 16."""
    return pieces[0::2] | (pieces[1::2] << np.uint8(2))
