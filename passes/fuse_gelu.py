"""Gelu as one operator: the session recognises a decomposed one behind some nodes only.

A product without a bias is not among them: a Gelu behind one would stay Erf, Div and Mul, three times as slow.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import Rewrite
from .context import Context
from .gelu.form import Activation, match_activation
from .report import Skip

# The lowest opset that has Gelu.
OPSET_GELU = 20


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Activation] | None:
    """Return the decomposed Gelu that ends in a node."""
    if not context.lowering.integer_rows or node.op not in ("Mul", "Div"):
        return None
    form = match_activation(node, context.is_output)
    if not isinstance(form, Activation) or form.kind != "gelu" or form.dtype != "float32":
        return None
    return Rewrite(scope, form)


def replace(context: Context, matches: list[Rewrite[Activation]]) -> Skip | None:
    """Write one Gelu."""
    (rewrite,) = matches
    at = context.editor.before(rewrite.scope, rewrite.node)
    if at.opset < OPSET_GELU:
        return Skip("the opset has no Gelu")
    at.deliver(at.op("Gelu", rewrite.form.x, name=rewrite.node.outputs[0].name), rewrite.node)
    return None
