"""Packed codes whose blocks have multiples of the column's scale, and perhaps zero points.

codes uint8 [n, blocks, block bytes]
multiples [n, blocks], column scale [n] -- MultipleScales -> block scales [n, blocks]
zero points uint8 [n, blocks / 2]
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..formats.block import BlockFormat, BlockTensor
from ..functions import decode_multiples
from ..functions.unpack import NIBBLE
from ..graph.editor import Emitter
from .base import StoredWeight
from .packing import pack, pack_zeros
from .scales import scale_constant
from .unpack import opset_for, store_nibbles

# Blocks that a column with one scale is cut into for the kernel.
BLOCKS = (128, 64, 32, 16)


@dataclass(frozen=True)
class PackedWeight(StoredWeight):
    """A weight in the graph whose `values` are packed codes, and whose `scale` is that of blocks.

    Attributes:
        multiples: what scales of blocks are multiples of their column's, [n, blocks], or None where they are equal.
        column_scale: scales of columns, [n].
        zeros: zero points of blocks, uint8 [n, blocks / 2], or None.
    """

    multiples: gs.Tensor | None = None
    column_scale: gs.Tensor | None = None
    zeros: gs.Tensor | None = None

    @property
    def zero_points(self) -> tuple[gs.Tensor, ...]:
        """The zero points, where there are some."""
        return () if self.zeros is None else (self.zeros,)


def store_multiples(load: Emitter, tensor: BlockTensor, name: str, by_rows: bool) -> PackedWeight:
    """Write packed codes [n, blocks, block bytes], and what makes scales of blocks."""
    fmt = replace(tensor.format, block_size=tensor.format.block_size or even_block(tensor.k))
    codes = pack(_in_blocks(tensor, fmt), fmt, load.workers)
    stored = load.constant(codes, f"{name}.codes")
    column, size = scale_constant(load, tensor.column_scale, name), codes.nbytes + tensor.column_scale.nbytes
    attrs = {"tensor_scale": tensor.tensor_scale, "blocks": list(codes.shape[:2])}
    if fmt.max_exponent:
        multiples, bytes_ = _store_multiples(load, np.ascontiguousarray(tensor.exponents.T) + 1, f"{name}.multiples")
        size, scales = size + bytes_, decode_multiples.MULTIPLE_SCALES
    else:
        multiples, scales = None, decode_multiples.COLUMN_SCALES
    inputs = (column,) if multiples is None else (multiples, column)
    (scale,) = load.call(scales, *inputs, name=f"{name}.block_scale", attrs=attrs)
    zeros = None if tensor.zeros is None else load.constant(pack_zeros(tensor.zeros), f"{name}.zeros")
    size += 0 if zeros is None else zeros.values.nbytes
    shape = (tensor.k, tensor.n, by_rows, tensor.tensor_scale, size)
    return PackedWeight(name, stored, scale, fmt, *shape, multiples=multiples, column_scale=column, zeros=zeros)


def even_block(k: int) -> int:
    """Return the block size of the kernel that leaves the least padding behind k rows, the largest of those."""
    return min(BLOCKS, key=lambda block: (-(-k // block) * block, -block))


def _store_multiples(load: Emitter, multiples: NDArray[np.uint8], name: str) -> tuple[gs.Tensor, int]:
    """Return (multiples as stored, half a byte each where the opset unpacks them, bytes)."""
    if load.opset < opset_for(NIBBLE):
        return load.constant(multiples, name), multiples.nbytes
    return store_nibbles(load, multiples, name)


def _in_blocks(tensor: BlockTensor, fmt: BlockFormat) -> NDArray[np.int8]:
    """Return the codes in blocks of a format, int8 [blocks, block size, n], with zeros behind the last."""
    blocks, rows = fmt.blocks(tensor.k)
    if tensor.codes.shape[:2] == (blocks, rows):
        return tensor.codes
    codes = np.zeros((blocks * rows, tensor.n), np.int8)
    codes[: tensor.k] = tensor.codes.reshape(-1, tensor.n)[: tensor.k]
    return codes.reshape(blocks, rows, tensor.n)
