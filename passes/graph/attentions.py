"""Attention as a call: nodes that kernels of the project's own may take the place of.

    Before: q, k, v, mask [b or 1, h or 1, s, t] or [s, t] -- Attention -> y
    After:  the same -- RowAttentionMasked, HeadAttentionMasked, or without a mask RowAttention, HeadAttention -> y

The body is the node itself, so that nothing changes where there are no such kernels. What they do not take stays a
node: other types than float32, caches as inputs, causal masks, capped scores, shapes of which too little is known.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..functions.attention import ATTENTION
from ..functions.function import DOMAIN
from .shapes import Shapes
from .types import element_type
from .walk import is_standard

COUNTS = ("q_num_heads", "kv_num_heads")
# Axes of rows [b, s, h * d] and of heads [b, h, s, d]; of masks.
ROWS, HEADS, MASKS = 3, 4, (2, 4)


def make_call(node: gs.Node, shapes: Shapes) -> None:
    """Let a node be a call, if it is an Attention that a function computes."""
    if node.op != "Attention" or not is_standard(node):
        return
    inputs = [tensor for tensor in node.inputs if tensor.name]
    if not _fits(node, inputs, shapes):
        return
    heads_first = COUNTS[0] not in node.attrs
    counts = {} if heads_first else {name: int(node.attrs[name]) for name in COUNTS}
    function = ATTENTION[heads_first, len(inputs) > len("qkv")]
    node.op, node.domain = function.name, DOMAIN
    node.attrs = {"scale": float(node.attrs["scale"]), **counts}
    node.inputs, node.outputs = inputs, node.outputs[:1]


def _fits(node: gs.Node, inputs: list[gs.Tensor], shapes: Shapes) -> bool:
    known = [shapes.shape(tensor) for tensor in inputs]
    given = {name for name, value in node.attrs.items() if value or name == "scale"}
    counted = given - {"scale"}
    if "scale" not in given or counted not in (set(), set(COUNTS)) or len(inputs) not in (3, 4):
        return False
    if any(tensor.name for tensor in [*node.inputs[len(inputs) :], *node.outputs[1:]]):
        return False
    if any(element_type(tensor) != "float32" for tensor in inputs):
        return False
    sizes = [shape for shape in known if shape is not None]
    if len(sizes) < len(inputs) or {len(shape) for shape in sizes[:3]} != {ROWS if counted else HEADS}:
        return False
    return len(sizes) == len("qkv") or (len(sizes[3]) in MASKS and sizes[3][-2:] == (sizes[0][-2], sizes[1][-2]))
