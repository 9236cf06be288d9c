"""Codes that stay packed in memory: MatMulNBits and GatherBlockQuantized with scales expanded at load.

codes uint8 [n, blocks, block bytes], block scales [n, blocks]
x [..., k] -- MatMulNBits(accuracy_level 4) -> [..., n]
indices [...] -- GatherBlockQuantized -> [..., k]

Where that is not to be had, what is looked up is unpacked at every call:

indices [...] -- Gather(codes [n, row bytes]) -- BitShift left, right -> pieces [..., k] -- Cast -- Sub(2^(bits-1))
               -- Mul(Gather(block scales)) -> [..., k]
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockFormat, BlockTensor
from ..formats.planes import pack_nibbles
from ..formats.threads import over_ranges
from ..graph.editor import Emitter
from ..graph.features import NOTHING, Feature, Lacks
from .base import StoredWeight
from .operators import FLOAT, cast, keep_first, reshape, unsqueeze_last
from .scales import expand_scales

# Widths of MatMulNBits, with what they are where runtimes may lack them.
WIDTHS = {2: Feature.NBITS_2, 4: None, 8: Feature.NBITS_8}
# MatMulNBits takes powers of two; above 256 released runtimes compute wrong numbers without an error.
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 256
# One block for a whole column is not to be had: the kernel's fastest block at 8 bits stands for it.
WHOLE_COLUMN_BLOCK = 128
# Columns that a thread packs at a time: a row's part is two lines of a cache, all of them stay in the second level.
COLUMNS = 128
# int8 activations inside the kernel; other levels are slower than float.
ACCURACY_LEVEL = 4


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
    _flat: dict[str, gs.Variable] = field(default_factory=dict)

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return the next width and power-of-two block size that the kernel takes, with quarter-octave scales.

        Weights of more bits than there are have the most.
        """
        widths = [width for width, feature in WIDTHS.items() if feature not in self.lacks]
        width = next((w for w in widths if w >= bits), widths[-1])
        block = min(max(block_size or WHOLE_COLUMN_BLOCK, SMALLEST_BLOCK), LARGEST_BLOCK)
        block = 1 << (block - 1).bit_length()
        while block > SMALLEST_BLOCK and block // 2 >= k:
            block //= 2
        return BlockFormat.fine(width, block)

    def opset(self, bits: int) -> int:
        """Return the lowest opset: its operators are the runtime's own, and Pow and Cast as they always were."""
        return 7

    def store(self, load: Emitter, tensor: BlockTensor, name: str, by_rows: bool) -> StoredWeight:
        """Write packed codes [n, blocks, block bytes] and the scales' expansion."""
        packed = _pack(tensor, load.workers)
        scale, scale_bytes = expand_scales(
            load,
            np.ascontiguousarray(tensor.exponents.T),
            tensor.column_scale[:, None],
            tensor.tensor_scale,
            tensor.format,
            name,
        )
        # The kernel repacks constant codes without scales that are none, and multiplies with zeros: in a session that
        # folds nothing, codes must not be constant either.
        values = load.op("Identity", load.constant(packed, f"{name}.codes"), name=f"{name}.packed")
        size = packed.nbytes + scale_bytes
        return StoredWeight(name, values, scale, tensor.format, tensor.k, tensor.n, by_rows, tensor.tensor_scale, size)

    def multiply(
        self, at: Emitter, x: gs.Tensor, weight: StoredWeight, name: str, floor: float | None = None
    ) -> gs.Variable:
        """Write MatMulNBits."""
        return at.op(
            "MatMulNBits",
            x,
            weight.values,
            weight.scale,
            name=f"{name}.product",
            domain="com.microsoft",
            dtype=np.float32,
            K=weight.k,
            N=weight.n,
            bits=weight.format.bits,
            block_size=weight.format.block_size,
            accuracy_level=ACCURACY_LEVEL,
        )

    def lookup(self, at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str) -> gs.Variable:
        """Write GatherBlockQuantized, or what it computes, on the same codes, seen as [n, row bytes]."""
        flat = self._flat.get(table.values.name)
        if flat is None:
            flat = reshape(at.at_load(), table.values, (table.n, -1), f"{name}.codes")
            self._flat[table.values.name] = flat
        if not at.has(Feature.GATHER_BLOCKS_2 if table.format.bits == 2 else Feature.GATHER_BLOCKS):
            return _unpacked_rows(at, table, flat, indices, name)
        rows = at.op(
            "GatherBlockQuantized",
            flat,
            indices,
            table.scale,
            name=f"{name}.rows",
            domain="com.microsoft",
            dtype=np.float32,
            bits=table.format.bits,
            block_size=table.format.block_size,
            gather_axis=0,
            quantize_axis=1,
        )
        padded = table.k % table.format.block_size
        return keep_first(at, rows, -1, table.k, f"{name}.unpadded") if padded else rows


def _unpacked_rows(at: Emitter, table: StoredWeight, codes: gs.Tensor, indices: gs.Tensor, name: str) -> gs.Variable:
    """Write what GatherBlockQuantized computes: [..., k]."""
    fmt, blocks = table.format, table.format.blocks(table.k)[0]
    pieces: gs.Tensor = at.op("Gather", codes, indices, name=f"{name}.bytes", axis=0)
    shape = at.op("Shape", indices, name=f"{name}.shape", dtype=np.int64)
    if fmt.bits < 8:
        # A byte's pieces, the lowest first: what is above a piece falls out on the left, what is below on the right.
        left = np.arange(8 - fmt.bits, -1, -fmt.bits, dtype=np.uint8)
        pieces = unsqueeze_last(at, pieces, 1, f"{name}.pieces")
        pieces = at.op("BitShift", pieces, at.constant(left, f"left{fmt.bits}"), name=f"{name}.high", direction="LEFT")
        right = at.constant(np.array([8 - fmt.bits], np.uint8), f"right{fmt.bits}")
        pieces = at.op("BitShift", pieces, right, name=f"{name}.low", direction="RIGHT")
    in_blocks = at.constant(np.array([blocks, fmt.block_size], np.int64), f"{name}.in_blocks")
    apart = at.op("Concat", shape, in_blocks, name=f"{name}.apart", dtype=np.int64, axis=0)
    pieces = at.op("Reshape", cast(at, pieces, FLOAT, f"{name}.floats"), apart, name=f"{name}.blocks")
    middle = at.constant(np.array(-fmt.low, np.float32), f"middle{fmt.bits}")
    steps = at.op("Sub", pieces, middle, name=f"{name}.steps")
    scale = at.op("Gather", table.scale, indices, name=f"{name}.scale", axis=0)
    rows = at.op("Mul", steps, unsqueeze_last(at, scale, 1, f"{name}.scales"), name=f"{name}.scaled")
    whole = at.constant(np.array([blocks * fmt.block_size], np.int64), f"{name}.whole")
    joined = at.op("Concat", shape, whole, name=f"{name}.joined", dtype=np.int64, axis=0)
    rows = at.op("Reshape", rows, joined, name=f"{name}.rows", dtype=np.float32)
    return keep_first(at, rows, -1, table.k, f"{name}.unpadded") if table.k % fmt.block_size else rows


def _pack(tensor: BlockTensor, workers: int) -> NDArray[np.uint8]:
    """Return codes [n, blocks, block bytes] around 2^(bits-1), neighbours in one byte, the first one lowest."""
    blocks, rows, n = tensor.codes.shape
    packed = np.empty((n, blocks, rows * tensor.format.bits // 8), np.uint8)

    def pack(columns: slice) -> None:
        codes = np.ascontiguousarray(tensor.codes[:, :, columns].transpose(2, 0, 1))
        packed[columns] = _pack_columns(codes, tensor.format)

    over_ranges(pack, n, COLUMNS, workers)
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
