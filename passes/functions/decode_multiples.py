"""DecodeMultiples: codes as MatMulNBits has them, and the multiple of a block, to int8 columns; and to float scales.

    codes uint8 [n, blocks, block bytes] -----------------------+
    multiples uint4 or uint8 [n, blocks] -- Mul(16) -- + turn --+-- Concat -> rows uint8 [n, blocks, block bytes + 1]
    rows -- MatMulInteger(spread) -> places int32 [n, blocks, block bytes]: a byte + 256 times its block's multiple
    table int8 [16 * 256, pieces] -- Gather(places) -- Transpose -- Reshape -> y int8 [blocks * block size, n]

A place says what a byte's pieces are times a multiple; MultipliedBytes makes the table, once for a width.
Codes of a byte are int8 as they are: DecodeBytes. A session computes all that once, when it is made, and keeps each
step until its round is over: 5.5 bytes a weight of 4 bits. Widened by a Cast and added, places would take 2 more.
What codes are combined with waits for a turn, see Turn. MultipleScales and ColumnScales make the scales of the blocks.

Where blocks have zero points, uint8 [n, blocks / 2] as MatMulNBits has them, the table of OffsetBytes4 says what pieces
less a zero point are times a multiple, and DecodeOffsets has four bytes beside the codes, all of them zero point * 16 +
multiple, for its place: 256 times that and a byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .function import Function
from .lanes import byte, lanes

# Widths whose codes are multiplied, see BlockFormat.multiples; codes of a byte are int8 as they are.
MULTIPLIED = (2, 4)
# What half a byte says: multiples 0, of which there is none, to 15, and zero points.
FACTORS, ZEROS = 16, 16
# Places that a multiple is worth, and how many times it the byte beside the codes is; `spread` has the rest.
_PLACES, _BESIDE = 256, 16
# Bytes beside the codes where there are zero points: an int8 is at most 127, and two products add up to an int16.
_KINDS = 4


def reference(
    codes: NDArray[np.int8], multiples: NDArray[np.uint8], zeros: NDArray[np.int8] | None = None
) -> NDArray[np.int8]:
    """Return the int8 weight [blocks * rows, n] of codes [n, blocks, rows] times multiples [n, blocks]: exact.

    Zero points, [n, blocks], are subtracted before.
    """
    numbers = codes.astype(np.int16) - (0 if zeros is None else zeros[..., None])
    products = (numbers * multiples[..., None]).astype(np.int8)
    return np.ascontiguousarray(products.reshape(len(codes), -1).T)


def scales(
    multiples: NDArray[np.uint8], column_scale: NDArray[np.floating], tensor_scale: float = 1.0
) -> NDArray[np.float32]:
    """Return the scales [n, blocks] of blocks with multiples [n, blocks]: two products, which round once each."""
    column = column_scale.astype(np.float32) * np.float32(tensor_scale)
    y: NDArray[np.float32] = multiples.astype(np.float32) * column[:, None]
    return y


def spread(size: int, zeros: bool = False) -> NDArray[np.int8]:
    """Return what makes places of a block of so many bytes and those beside them, int8 [size + 1 or 4, size]."""
    count, each = (_KINDS, _PLACES // _KINDS) if zeros else (1, _PLACES // _BESIDE)
    return np.concatenate([np.eye(size, dtype=np.int8), np.full((count, size), each, np.int8)])


def _table(bits: int, offset: bool = False) -> str:
    """Return the body that makes the table: zero points, factors, pieces of a byte (highest first), which of them."""
    pieces, codes = 8 // bits, 1 << bits
    steps = ", ".join(str(code - codes // 2) for code in range(codes))
    lines, apart = [f"bytes_shape = Constant <value_ints = [{', '.join([str(codes)] * pieces)}, 1]> ()"], []
    for piece in range(pieces):
        axes = [1] * pieces
        axes[pieces - 1 - piece] = codes
        dims = ", ".join(map(str, (*axes, 1)))
        lines.append(f"steps{piece} = Constant <value = int32[{dims}] {{{steps}}}> ()")
        lines.append(f"piece{piece} = Expand (steps{piece}, bytes_shape)")
        apart.append(f"piece{piece}")
    lines.append(f"bytes = Concat <axis = -1> ({', '.join(apart)})")
    if offset:
        dims = ", ".join(map(str, (codes, *[1] * (pieces + 2))))
        lines.append(f"zeros = Constant <value = int32[{dims}] {{{steps}}}> ()")
        lines.append("numbers = Sub (bytes, zeros)")
    return f"""
        {" ".join(lines)}
        apart = Constant <value_ints = [-1{", 1" * (pieces + 1)}]> ()
        apart_factors = Reshape (factors, apart)
        products = Mul (apart_factors, {"numbers" if offset else "bytes"})
        int8 = Cast <to = 3> (products)
        table_shape = Constant <value_ints: ints = @table> ()
        y = Reshape (int8, table_shape)"""


TABLES = {
    bits: Function(
        f"MultipliedBytes{bits}",
        "factors",
        "y",
        _table(bits),
        f"Make the table of all that {bits}-bit codes in a byte are times each factor",
        dtypes=(np.int8,),
        axes="table",
    )
    for bits in MULTIPLIED
}
OFFSET_TABLE = Function(
    "OffsetBytes4",
    "factors",
    "y",
    _table(4, offset=True),
    "Make the table of all that 4-bit codes in a byte, less each zero point, are times each factor",
    dtypes=(np.int8,),
    axes="table",
)
_LOOKED_UP = """
        places = MatMulInteger (rows, spread)
        numbers = Gather (table, places)
        turned = Transpose <perm = [1, 2, 3, 0]> (numbers)
        matrix_shape = Constant <value_ints: ints = @matrix> ()
        y = Reshape (turned, matrix_shape)"""
MULTIPLES = Function(
    "DecodeMultiples",
    "codes, multiples, table, spread, turn",
    "y",
    f"""
        factors = Cast <to = 2> (multiples)
        four = {byte(_BESIDE.bit_length() - 1)}
        high = BitShift <direction = "LEFT"> (factors, four)
        late = Cast <to = 2> (turn)
        in_turn = BitwiseOr (high, late)
        last = Constant <value_ints = [-1]> ()
        beside = Unsqueeze (in_turn, last)
        rows = Concat <axis = -1> (codes, beside){_LOOKED_UP}""",
    "Decode codes times a multiple a block to int8 columns",
    dtypes=(np.int8,),
    axes="matrix",
)
OFFSETS = Function(
    "DecodeOffsets",
    "codes, zero_points, multiples, table, spread, turn",
    "y",
    f"""
        late = Cast <to = 2> (turn)
        last = Constant <value_ints = [-1]> ()
        pairs = Unsqueeze (zero_points, last)
        {lanes("pairs", "pieces", 4, (2,))}
        flat_shape = Constant <value_ints = [0, -1]> ()
        flat = Reshape (pieces, flat_shape)
        first_block = Constant <value_ints = [0]> ()
        last_block = Constant <value_ints: ints = @count> ()
        along = Constant <value_ints = [1]> ()
        each = Slice (flat, first_block, last_block, along)
        four = {byte(4)}
        high = BitShift <direction = "LEFT"> (each, four)
        factors = Cast <to = 2> (multiples)
        kinds = BitwiseOr (high, factors)
        beside = Unsqueeze (kinds, last)
        rows = Concat <axis = -1> (codes, {", ".join(["beside"] * _KINDS)}){_LOOKED_UP}""",
    "Decode codes less a zero point times a multiple a block to int8 columns",
    dtypes=(np.int8,),
    axes="matrix",
)
BYTES = Function(
    "DecodeBytes",
    "codes, turn",
    "y",
    f"""
        late = Cast <to = 2> (turn)
        signs = {byte(128)}
        in_turn = BitwiseOr (signs, late)
        signed = BitwiseXor (codes, in_turn)
        blocks = Cast <to = 3> (signed)
        turned = Transpose <perm = [1, 2, 0]> (blocks)
        matrix_shape = Constant <value_ints: ints = @matrix> ()
        y = Reshape (turned, matrix_shape)""",
    "Decode codes of a byte to int8 columns",
    dtypes=(np.int8,),
    axes="matrix",
)
TABLE_BYTES = Function(
    "TableBytes",
    "table",
    "y",
    f"""
        bytes = Cast <to = 2> (table)
        signs = {byte(128)}
        codes = BitwiseXor (bytes, signs)
        blocks_shape = Constant <value_ints: ints = @byte_blocks> ()
        y = Reshape (codes, blocks_shape)""",
    "Make codes around 128 of int8 rows",
    dtypes=(np.uint8,),
    axes="byte_blocks",
)

_COLUMN = """
        floats = Cast <to = 1> (column_scale)
        unit = Constant <value_float: float = @tensor_scale> ()
        scales = Mul (floats, unit)
        column_shape = Constant <value_ints = [-1, 1]> ()
        column = Reshape (scales, column_shape)"""
MULTIPLE_SCALES = Function(
    "MultipleScales",
    "multiples, column_scale",
    "y",
    f"""{_COLUMN}
        factors = Cast <to = 1> (multiples)
        y = Mul (factors, column)""",
    "Expand multiples of a column's scale to the float scales of blocks",
    axes="first",
)
COLUMN_SCALES = Function(
    "ColumnScales",
    "column_scale",
    "y",
    f"""{_COLUMN}
        blocks_shape = Constant <value_ints: ints = @blocks> ()
        y = Expand (column, blocks_shape)""",
    "Repeat the scale of a column for all of its blocks",
    axes="blocks",
)
