"""MatMul of two activations (queries and keys, probabilities and values): int8 on both sides.

Before: a [..., m, k], b [..., k, n] -- MatMul -> [..., m, n]
After:  a, b -- IntegerMatMul -> [..., m, n] (a scale per row of a and per column of b)
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from ..context import Context
from ..functions.quantize_rows import LONGEST_SUM
from ..graph.constants import FLOATS, resolve
from ..graph.features import OPSET_INT4
from ..graph.shapes import rank
from ..graph.types import element_type
from ..report import Skip
from .function import FUSED, STANDARD

# ReduceMax with its axes as an input.
OPSET = OPSET_INT4
COMPUTES = True
# Products whose kernels take floats only.
FLOAT_KERNELS = ("Attention", "Einsum", "FusedMatMul", "GroupQueryAttention", "MultiHeadAttention")
MATRIX = 2


@dataclass(frozen=True)
class ActivationProduct:
    """A product of two activations."""

    scope: gs.Graph
    node: gs.Node
    dtype: str


def match(scope: gs.Graph, node: gs.Node, context: Context) -> ActivationProduct | Skip | None:
    """Return the product of two activations that a MatMul stands for."""
    del context
    if node.op in FLOAT_KERNELS:
        constants = [tensor for tensor in node.inputs if tensor.name and resolve(tensor) is not None]
        return None if node.op == "Einsum" and constants else Skip(f"{node.op} multiplies activations in its kernel")
    if node.op not in ("MatMul", "Gemm") or any(resolve(tensor) is not None for tensor in node.inputs[:2]):
        return None
    if node.op == "Gemm":
        return Skip("a Gemm of two activations")
    ranks = [rank(tensor) for tensor in node.inputs]
    if any(dims is not None and dims < MATRIX for dims in ranks):
        return Skip(f"its inputs have {ranks[0]} and {ranks[1]} axes: a vector has no rows and columns")
    dtype = element_type(node.inputs[0]) or element_type(node.inputs[1]) or "float32"
    if dtype not in FLOATS:
        return Skip(f"its type is {dtype}, not a float")
    k = next((dims[axis] for tensor, axis in zip(node.inputs, (-1, -2), strict=True) if (dims := tensor.shape)), None)
    if isinstance(k, int) and k > LONGEST_SUM:
        return Skip(f"its sums have {k} products: an int32 holds {LONGEST_SUM}")
    return ActivationProduct(scope, node, dtype)


def replace(context: Context, matches: list[ActivationProduct]) -> Skip | None:
    """Rewrite one product."""
    node, dtype = matches[0].node, matches[0].dtype
    at, name = context.editor.before(matches[0].scope, node), f"product{context.report.replaced}"
    a, b = (context.as_float(at, tensor, dtype) for tensor in node.inputs)
    function = STANDARD if context.lowering.standard_only else FUSED
    (y,) = at.call(function, a, b, name=name, node=node.name)
    at.deliver(at.as_type(y, dtype, name), node)
    return None
