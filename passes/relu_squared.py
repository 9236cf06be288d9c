"""Relu squared (Primer, Nemotron) in 8-bit codes, whose squares are whole numbers below 2^16.

    Before: x [..., k] -- Relu -> r,  r -- Mul(r), or Pow(2) -> y [..., k]
    After:  x -- CodedReluSquared -> y

A code has no sign, so it is twice as fine as an int8 one of the same block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .base import Rewrite
from .context import Context
from .functions.function import Function
from .functions.quantize_blocks import SHIFTS, SMALLEST_PEAK, CodeType, block_shifts
from .graph.constants import FLOATS, resolve, small_values
from .graph.features import OPSET_INT4, Feature
from .graph.types import element_type
from .graph.walk import is_standard
from .patterns.region import readers
from .report import Skip
from .written import BLOCK_SIZE

# Blockwise QuantizeLinear.
OPSET = OPSET_INT4
COMPUTES = True
CODE = CodeType(onnx.TensorProto.UINT8, 255, 8, 1 / 255)
FUNCTION = Function(
    "CodedReluSquared",
    "x",
    "y",
    f"""
        positive = Relu (x)
        first = Constant <value_ints = [0]> ()
        flat = Unsqueeze (positive, first)
        rows = Flatten <axis = -1> (flat)
        {SHIFTS}
        codes = QuantizeLinear <axis = 1, block_size: int = @block_size, output_dtype = {CODE.onnx}> (rows, shifts)
        decoded = DequantizeLinear <axis = 1, block_size: int = @block_size> (codes, shifts)
        squares = Mul (decoded, decoded)
        shape = Shape (x)
        y = Reshape <allowzero = 1> (squares, shape)""",
    "Square of max(x, 0) by 8-bit codes, a power-of-two scale a block",
    axes="first",
)


def reference(x: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Return the squares [..., k], finite x: exact, as a code's square is below 2^16 and a shift a power of two."""
    rows = np.maximum(x, np.float32(0)).reshape(-1, x.shape[-1])
    shifts = np.repeat(block_shifts(rows, CODE, block), block, -1)[:, : rows.shape[1]]
    decoded = np.clip(np.rint(rows / shifts), 0, CODE.largest).astype(np.float32) * shifts
    with np.errstate(over="ignore", under="ignore"):
        y: NDArray[np.float32] = np.square(decoded).reshape(x.shape)
    return y


def bound(x: NDArray[np.floating], block: int) -> NDArray[np.float64]:
    """Return the largest error of each element of x [..., k].

    With r = max(x, 0) and h the largest error of a code, 1/255 of the block's largest r: h (2 r + h).
    """
    r = np.maximum(np.asarray(x, np.float64), 0)
    padded = np.pad(r, [(0, 0)] * (r.ndim - 1) + [(0, -r.shape[-1] % block)])
    peaks = np.maximum(padded.reshape(*r.shape[:-1], -1, block).max(-1), SMALLEST_PEAK)
    h = np.repeat(peaks * CODE.bound, block, -1)[..., : r.shape[-1]]
    found: NDArray[np.float64] = h * (2 * r + h)
    return found


@dataclass(frozen=True)
class ReluSquared:
    """The square of a Relu: the node that squares, the input of the Relu, and the name of that input's float type."""

    node: gs.Node
    x: gs.Tensor
    dtype: str


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[ReluSquared] | Skip | None:
    """Return the squared Relu that ends in a node."""
    if not _squares(node):
        return None
    inner = node.inputs[0]
    relu = inner.inputs[0] if inner.inputs else None
    if relu is None or relu.op != "Relu" or not is_standard(relu):
        return None
    if context.is_output(inner):
        return Skip(f"its inner value {inner.name} is an output of the graph")
    other = next((reader for reader in readers(inner) if reader is not node), None)
    if other is not None:
        return Skip(f"its inner value {inner.name} is also used by {other.name or other.op}")
    x = relu.inputs[0]
    if resolve(x) is not None:
        return Skip("its input is a constant: the session folds it")
    dtype = element_type(x)
    if dtype not in FLOATS:
        return Skip(f"its type is {dtype or 'not known'}, not a float")
    return Rewrite(scope, ReluSquared(node, x, dtype))


def replace(context: Context, matches: list[Rewrite[ReluSquared]]) -> Skip | None:
    """Rewrite one squared Relu."""
    form, block = matches[0].form, context.options.block_size or BLOCK_SIZE
    at, name = context.editor.before(matches[0].scope, form.node), f"relu_squared{context.report.replaced}"
    if not at.has(Feature.BLOCKWISE):
        return Skip(f"the runtime lacks {Feature.BLOCKWISE}")
    attrs = {"block": [block], "block_size": block, "ulps": CODE.ulps}
    (y,) = at.call(FUNCTION, context.as_float(at, form.x, form.dtype), name=name, node=form.node.name, attrs=attrs)
    at.deliver(at.as_type(y, form.dtype, name), form.node)
    return None


def _squares(node: gs.Node) -> bool:
    """Tell whether a node squares its first input."""
    if not is_standard(node) or node.op not in ("Mul", "Pow"):
        return False
    if node.op == "Mul":
        return node.inputs[0] is node.inputs[1]
    exponent = small_values(node.inputs[1])
    return exponent is not None and exponent.size == 1 and exponent.item() == 2
