"""Products with weights that the model brings as int8 already: the same codes, multiplied as codes.

Before: codes int8 [k, n], scale -- DequantizeLinear -> float [k, n]; x -- MatMul -> [..., n]
After:  x -- lowering.multiply(the same codes and scales) -> [..., n]

At the opset that codes of other weights need, the session would make MatMulNBits of the pair, slower than it was. Where
activations are codes, too, it multiplies these itself: such products are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .channels import fill_rows, raw_origin
from .context import Context
from .formats.block import BlockFormat
from .graph.constants import resolve
from .graph.walk import is_standard
from .lowerings.base import StoredWeight
from .report import Skip

MATRIX = 2
# Zero points around which codes are symmetric, by type.
MIDDLES = {"int8": 0, "uint8": 128}


@dataclass(frozen=True)
class Quantized:
    """A MatMul or Gemm, its activation, and the codes [k, n] and scales, [n] or [1], of its weight."""

    scope: gs.Graph
    node: gs.Node
    codes: gs.Constant
    steps: NDArray[np.int8]
    scale: NDArray[np.float32]


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Quantized | Skip | None:
    """Return the product with a quantized weight that a node is."""
    if not context.lowering.integer_rows or node.op not in ("MatMul", "Gemm") or not is_standard(node):
        return None
    maker = node.inputs[1].inputs[0] if node.inputs[1].inputs else None
    if maker is None or maker.op != "DequantizeLinear" or not isinstance(maker.inputs[0], gs.Constant):
        return None
    x, attrs = node.inputs[0], node.attrs
    if x.inputs and x.inputs[0].op == "DequantizeLinear":
        return Skip("its activation is quantized, too: the session multiplies the codes")
    if attrs.get("transA") or attrs.get("alpha", 1) != 1 or attrs.get("beta", 1) != 1:
        return Skip("its weight is quantized already, and it is more than a product and a sum")
    found = _codes(maker, bool(attrs.get("transB")))
    if isinstance(found, Skip):
        return found
    return Quantized(scope, node, maker.inputs[0], *found)


def replace(context: Context, matches: list[Quantized]) -> Skip | None:
    """Rewrite one product."""
    form = matches[0]
    node, (k, n) = form.node, form.steps.shape
    at, load, x = context.editor.before(form.scope, node), context.editor.at_load(), node.inputs[0]
    key = ("quantized", id(form.codes), bool(node.attrs.get("transB")), form.scale.tobytes())
    if key not in context.stored:
        name = f"w{len(context.stored)}"
        codes, scale = load.constant(form.steps, f"{name}.codes"), load.exact(form.scale, f"{name}.scale")
        size = form.steps.nbytes + form.scale.nbytes
        fmt = BlockFormat.shifted(8, 0)
        context.stored[key] = StoredWeight(name, codes, scale, fmt, k, n, by_rows=False, tensor_scale=1.0, bytes=size)
    weight = context.stored[key]
    if raw_origin(x, k).floats:
        x = context.once("filled", at, x, fill_rows)
    y = context.lowering.multiply(at, x, weight, weight.name, node.name)
    if len(node.inputs) > MATRIX and node.inputs[MATRIX].name:
        y = at.op("Add", y, node.inputs[MATRIX], name=f"{weight.name}.biased", dtype=np.float32)
    at.deliver(y, node)
    return None


def _codes(node: gs.Node, transposed: bool) -> tuple[NDArray[np.int8], NDArray[np.float32]] | Skip:
    """Return codes around zero, [k, n], and their scales, one each column or one for all."""
    views = [resolve(tensor) for tensor in node.inputs]
    if None in views or node.attrs.get("block_size"):
        return Skip("its weight is quantized in blocks, or by numbers that are not constant")
    codes, scale, *zero = [view.values() for view in views if view is not None]
    if codes.dtype.name not in MIDDLES or codes.ndim != MATRIX or scale.dtype != np.float32:
        return Skip(f"its weight is quantized to {codes.dtype} {list(codes.shape)}, with {scale.dtype} scales")
    codes = codes.T if transposed else codes
    axis = int(node.attrs.get("axis", 1)) % MATRIX
    if scale.size > 1 and axis == (1 if transposed else 0):
        return Skip("its weight has a scale for each place of the sums")
    middle = MIDDLES[codes.dtype.name]
    if np.any((zero[0] if zero else np.zeros(1)) != middle):
        return Skip(f"its weight is quantized around another zero point than {middle}")
    steps = np.ascontiguousarray((codes.astype(np.int16) - middle).astype(np.int8))
    return steps, np.ascontiguousarray(np.broadcast_to(scale.reshape(-1), codes.shape[1:]))
