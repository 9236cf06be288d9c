"""Tables that stay packed: the rows that are looked up, and no others, are decoded at every call."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..formats.block import BlockTensor
from ..formats.planes import pack_rows, split
from ..functions.block_gather_packed import BY_PACKING
from ..functions.unpack import Packing
from ..graph.editor import Emitter
from ..graph.shapes import rank
from .base import StoredWeight
from .operators import slice_first
from .scales import scale_constant
from .unpack import shift_count, store_shifts

# Below so many codes a table is looked up faster once it is decoded, which takes no more memory: MiniLM's 12 million,
# packed, cost 1.5 % of a call of 16 tokens. BERT has 23 million.
SMALLEST_CODES = 1 << 24


def store_rows(load: Emitter, tensor: BlockTensor, name: str) -> StoredWeight:
    """Write a table of codes below 8 bits as planes, row by row, and last among them the shifts of its scales."""
    fmt = tensor.format
    packing = Packing(fmt.bits, True, fmt.trellis)
    # Without a sign: the function takes off again what is added.
    codes = (tensor.codes + np.int8(-fmt.low)).transpose(2, 0, 1)
    planes = [
        load.constant(plane.packed.reshape(tensor.n, *packing.lane_axes(plane.bits), -1), f"{name}.rows{plane.bits}")
        for plane in split(codes, fmt.bits, pack_rows(tensor.n))
    ]
    # A shift that all rows share where blocks are whole rows.
    shifts = tensor.exponents.T if fmt.max_exponent else np.zeros((1, 1), np.uint8)
    planes.append(store_shifts(load, shifts, name)[0])
    scale = scale_constant(load, tensor.column_scale, name)
    size = sum(constant.values.nbytes for constant in (*planes, scale))
    k, n = tensor.k, tensor.n
    return StoredWeight(name, planes[0], scale, fmt, k, n, True, tensor.tensor_scale, size, tuple(planes))


def lookup_rows(at: Emitter, table: StoredWeight, indices: gs.Tensor, name: str, node: str) -> gs.Variable:
    """Write the rows of a packed table at indices [...]: [..., k]."""
    axes = rank(indices)
    if axes is None:
        flat = at.op("Reshape", indices, at.constant(np.array([-1], np.int64), "flat"), name=f"{name}.indices")
        rows = _lookup(at, table, flat, 1, name, node)
        shape = at.op("Shape", indices, name=f"{name}.indices_shape", dtype=np.int64)
        width = at.constant(np.array([table.k], np.int64), "width")
        shape = at.op("Concat", shape, width, name=f"{name}.rows_shape", dtype=np.int64, axis=0)
        return at.op("Reshape", rows, shape, name=f"{name}.reshaped", dtype=np.float32)
    return _lookup(at, table, indices, axes, name, node)


def _lookup(at: Emitter, table: StoredWeight, indices: gs.Tensor, axes: int, name: str, node: str) -> gs.Variable:
    blocks, size = table.format.blocks(table.k)
    # What blocks that are whole rows share.
    shifts = (table.n, blocks) if table.format.max_exponent else (1, 1)
    attrs = {
        "blocks": [0] * axes + [blocks, size],
        "row": [0] * axes + [blocks * size],
        "shifts": [-1, shifts[1], 1],
        "count": [shift_count(shifts)],
        "tensor_scale": table.tensor_scale,
    }
    inputs = (*table.planes, table.scale, indices)
    function = BY_PACKING[Packing(table.format.bits, True, table.format.trellis)]
    (rows,) = at.call(function, *inputs, name=f"{name}.rows", node=node, attrs=attrs)
    return slice_first(at, rows, -1, table.k, f"{name}.unpadded") if table.k < blocks * size else rows
