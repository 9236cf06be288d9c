"""Tables of int8 rows with a scale each, decoded when the session is made, that packed products multiply with, too.

table int8 [n, k], scale [n]                                    (as dense weights have them; rows are looked up there)
table -- Cast -- BitwiseXor(128) -- Reshape -> codes uint8 [n, blocks, block size]
scale -- ColumnScales -> block scales [n, blocks]
x [..., k] -- NBitsMatMul(codes, block scales) -> [..., n]

So a table has any width in the file, and a token's product reads a byte a number.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..functions import decode_multiples, nbits
from ..graph.editor import Emitter
from .base import StoredWeight
from .multiples import BLOCKS, even_block
from .operators import UINT8, cast, reshape

SIGN = 128
# Block of exponents in the file: with one bit each, small ones pay.
BLOCK = 8


def has_bytes(table: StoredWeight) -> bool:
    """Tell whether rows are whole blocks of the kernel."""
    return table.k % BLOCKS[-1] == 0


def bytes_of(at: Emitter, table: StoredWeight) -> tuple[gs.Tensor, gs.Tensor]:
    """Return the codes and block scales of the kernel for a table, written once."""
    return at.once(("bytes", table.values.name), lambda: _bytes_of(at.at_load(), table))


def attributes(table: StoredWeight) -> dict[str, int]:
    """Return what MatMulNBits is told of a table."""
    return {"K": table.k, "N": table.n, "bits": nbits.BYTE, "block_size": even_block(table.k)}


def multiply(at: Emitter, x: gs.Tensor, table: StoredWeight, name: str, node: str) -> gs.Variable:
    """Write NBitsMatMul of a table."""
    call = (x, *bytes_of(at, table))
    return at.call(nbits.MATMUL, *call, name=f"{name}.product", node=node, attrs=attributes(table))[0]


def as_bytes(load: Emitter, values: gs.Tensor, name: str) -> gs.Variable:
    """Write int8 numbers as the codes of the kernel, uint8 around 128."""
    signed = cast(load, values, UINT8, f"{name}.signed")
    sign = load.constant(np.array([SIGN], np.uint8), "sign")
    return load.op("BitwiseXor", signed, sign, name=name, dtype=np.uint8)


def _bytes_of(load: Emitter, table: StoredWeight) -> tuple[gs.Tensor, gs.Tensor]:
    block, name = even_block(table.k), f"{table.name}.bytes"
    codes = as_bytes(load, table.values, name)
    shape = (table.n, table.k // block)
    attrs = {"tensor_scale": table.tensor_scale, "blocks": list(shape)}
    (scale,) = load.call(decode_multiples.COLUMN_SCALES, table.scale, name=f"{name}.block_scale", attrs=attrs)
    return reshape(load, codes, (*shape, block), f"{name}.blocks"), scale
