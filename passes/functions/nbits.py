"""NBitsMatMul and NBitsGather: codes of 2, 4 or 8 bits that stay packed in memory, with a float scale a block.

    x [..., k] -- MatMulNBits(codes uint8 [n, blocks, block bytes], scale [n, blocks], accuracy_level 4) -> y [..., n]
    indices [...] -- GatherBlockQuantized(codes [n, row bytes], scale) -> y [..., k]

Where a runtime has no GatherBlockQuantized, NBitsGatherUnpacked unpacks what is looked up at every call.

NBitsMatMulOffset has zero points of blocks, too, uint8 [n, blocks / 2] as MatMulNBits has them.

NBitsMatMulScales and NBitsGatherScales expand the scales themselves, as BlockScales does.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from . import block_scales
from .function import Function, compose

# Widths of MatMulNBits.
WIDTHS = (2, 4, 8)
BYTE = 8
# The axes of Unsqueeze are an input from this one on.
OPSET_UNSQUEEZE = 13


def reference(codes: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the float weight [n, blocks * rows] of codes [n, blocks, rows]: exact.

    MatMulNBits rounds x to int8 in blocks on the way: an element errs by at most 1/254 of its block's peak.
    """
    return (codes.astype(np.float32) * scale[..., None]).reshape(len(codes), -1)


def _matmul(name: str, inputs: str, summary: str) -> Function:
    # The kernel repacks constant codes without scales that are none, and multiplies with zeros: in a session that folds
    # nothing, codes must not be constant either.
    body = f"""
        packed = Identity (codes)
        y = com.microsoft.MatMulNBits <
            K: int = @K, N: int = @N, bits: int = @bits, block_size: int = @block_size, accuracy_level = 4
        > ({inputs.replace("codes", "packed")})"""
    return Function(name, inputs, "y", body, summary)


MATMUL = _matmul("NBitsMatMul", "x, codes, scale", "Multiply x with a weight of packed codes, a scale a block")
OFFSET = _matmul(
    "NBitsMatMulOffset",
    "x, codes, scale, zero_points",
    "Multiply x with a weight of packed codes, a scale and a zero point a block",
)
GATHER = Function(
    "NBitsGather",
    "codes, scale, indices",
    "y",
    """
        row_shape = Constant <value_ints: ints = @rows> ()
        flat = Reshape (codes, row_shape)
        y = com.microsoft.GatherBlockQuantized <
            bits: int = @bits, block_size: int = @block_size, gather_axis = 0, quantize_axis = 1
        > (flat, indices, scale)""",
    "Look up rows of a table of packed codes, a scale a block",
    axes="picked",
)


def _unpacked(opset: int, bits: int) -> str:
    """Return the body of what GatherBlockQuantized computes, in standard operators at every call."""
    pieces = "bytes"
    lines = [
        "row_shape = Constant <value_ints: ints = @rows> ()",
        "flat = Reshape (codes, row_shape)",
        "bytes = Gather <axis = 0> (flat, indices)",
        "back = Constant <value_ints = [-1]> ()" if opset >= OPSET_UNSQUEEZE else "",
    ]
    if bits < BYTE:
        # A byte's pieces, the lowest first: what is above a piece falls out on the left, what is below on the right.
        left = ", ".join(map(str, range(BYTE - bits, -1, -bits)))
        pieces = "low"
        lines += [
            _unsqueeze("column", "bytes", opset),
            f"left = Constant <value = uint8[{BYTE // bits}] {{{left}}}> ()",
            'high = BitShift <direction = "LEFT"> (column, left)',
            f"right = Constant <value = uint8[1] {{{BYTE - bits}}}> ()",
            'low = BitShift <direction = "RIGHT"> (high, right)',
        ]
    lines += [
        f"floats = Cast <to = 1> ({pieces})",
        "shape = Shape (indices)",
        "block_shape = Constant <value_ints: ints = @blocks> ()",
        "apart = Concat <axis = 0> (shape, block_shape)",
        "blocks = Reshape (floats, apart)",
        f"middle = Constant <value_float = {float(1 << (bits - 1))!r}> ()",
        "steps = Sub (blocks, middle)",
        "row_scale = Gather <axis = 0> (scale, indices)",
        _unsqueeze("block_scale", "row_scale", opset),
        "scaled = Mul (steps, block_scale)",
        "width = Constant <value_ints: ints = @width> ()",
        "joined = Concat <axis = 0> (shape, width)",
        "y = Reshape (scaled, joined)",
    ]
    return "\n".join(lines)


def _unsqueeze(name: str, x: str, opset: int) -> str:
    return f"{name} = Unsqueeze {f'({x}, back)' if opset >= OPSET_UNSQUEEZE else f'<axes = [-1]> ({x})'}"


UNPACKED = {
    bits: Function(
        f"NBitsGatherUnpacked{bits}",
        "codes, scale, indices",
        "y",
        partial(_unpacked, bits=bits),
        GATHER.summary,
        axes="picked",
    )
    for bits in WIDTHS
}


def _with_scales(function: Function) -> Function:
    summary = f"{function.summary}, and expand the scales"
    return compose(function, "scale", block_scales.FUNCTION, f"{function.name}Scales", summary)


SCALED = [_with_scales(function) for function in (MATMUL, GATHER, *UNPACKED.values())]
