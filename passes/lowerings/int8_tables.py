"""Tables of int8 rows with a scale each, decoded when the session is made, that packed products multiply with, too.

table int8 [n, k], scale [n]                                    (as dense weights have them; rows are looked up there)
table -- TableBytes -> codes uint8 [n, blocks, block size]
scale -- ColumnScales -> block scales [n, blocks]
x [..., k] -- NBitsMatMul(codes, block scales) -> [..., n]

So a table has any width in the file, and a token's product reads a byte a number.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..functions import decode_multiples, nbits
from ..graph.editor import Emitter
from .base import StoredWeight
from .multiples import BLOCKS, even_block

# Block of exponents in the file: with one bit each, small ones pay.
BLOCK = 8


def has_bytes(table: StoredWeight) -> bool:
    """Tell whether rows are whole blocks of the kernel."""
    return table.k % BLOCKS[-1] == 0


def attributes(table: StoredWeight) -> dict[str, int | float | list[int]]:
    """Return what the kernel is told of a table, and the sizes of its bytes and scales."""
    block = even_block(table.k)
    blocks = [table.n, table.k // block]
    sizes: dict[str, int | float | list[int]] = {"K": table.k, "N": table.n, "bits": nbits.BYTE, "block_size": block}
    return {**sizes, "tensor_scale": table.tensor_scale, "blocks": blocks, "byte_blocks": [*blocks, block]}


def multiply(at: Emitter, x: gs.Tensor, table: StoredWeight, name: str, node: str) -> gs.Variable:
    """Write NBitsMatMul of a table."""
    call, attrs = (x, *_bytes_of(at, table)), attributes(table)
    return at.call(nbits.MATMUL, *call, name=f"{name}.product", node=node, attrs=attrs)[0]


def _bytes_of(at: Emitter, table: StoredWeight) -> tuple[gs.Tensor, gs.Tensor]:
    """Return the codes and block scales of the kernel for a table, written once."""
    return at.once(("bytes", table.values.name), lambda: _make_bytes(at.at_load(), table))


def _make_bytes(load: Emitter, table: StoredWeight) -> tuple[gs.Tensor, gs.Tensor]:
    name, attrs, block = f"{table.name}.bytes", attributes(table), even_block(table.k)
    codes = as_bytes(load, table.values, name, (table.n, table.k // block, block))
    (scale,) = load.call(decode_multiples.COLUMN_SCALES, table.scale, name=f"{name}.block_scale", attrs=attrs)
    return codes, scale


def as_bytes(load: Emitter, values: gs.Tensor, name: str, shape: tuple[int, ...]) -> gs.Variable:
    """Write int8 numbers as the codes of the kernel, uint8 around 128 of a shape."""
    return load.call(decode_multiples.TABLE_BYTES, values, name=name, attrs={"byte_blocks": list(shape)})[0]
