"""Softmax in integers, along any axis; an additive mask stays added to the scores before it.

Before: x -- Softmax -> probabilities, in any form that exporters write
After:  x -- BlockSoftmax -> probabilities (exponential from a table, integer sum)
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..base import Rewrite
from ..context import Context
from ..graph.constants import FLOATS, resolve
from ..graph.features import OPSET_INT4
from ..report import Skip
from .form import Softmax, match_softmax
from .function import FUNCTION

# ReduceMax and ReduceSum with their axes as an input.
OPSET = OPSET_INT4
COMPUTES = True
FUSED = ("Attention", "MultiHeadAttention", "GroupQueryAttention", "DecoderMaskedMultiHeadAttention", "LogSoftmax")


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Softmax] | Skip | None:
    """Return the softmax that ends in a node."""
    if node.op in FUSED:
        return Skip(f"the softmax inside {node.op} is computed by its kernel")
    form = match_softmax(node, context.editor.opset, context.is_output)
    if not isinstance(form, Softmax):
        return form
    if resolve(form.x) is not None:
        return Skip("its input is a constant: the session folds it")
    if form.dtype not in (None, *FLOATS):
        return Skip(f"its type is {form.dtype}, not a float")
    return Rewrite(scope, form)


def replace(context: Context, matches: list[Rewrite[Softmax]]) -> Skip | None:
    """Rewrite one softmax."""
    form = matches[0].form
    at, dtype = context.editor.before(matches[0].scope, form.node), form.dtype or "float32"
    name = f"softmax{context.report.replaced}"
    x, attrs = context.as_float(at, form.x, dtype), {"axes": [form.axis]}
    (y,) = at.call(FUNCTION, x, name=name, node=form.node.name, attrs=attrs)
    at.deliver(at.as_type(y, dtype, name), form.node)
    return None
