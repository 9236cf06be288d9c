"""Gelu and its kin (tanh form, QuickGelu, SiLU) from a table of 256 integers, 8 bits in and 8 bits out.

Before: x -- Gelu, BiasGelu, FastGelu, QuickGelu, Swish, or what exporters write of Erf, Tanh, Sigmoid -> y
After:  (x -- Add bias) -- TableGelu (of its kind) -> y
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..base import Rewrite
from ..context import Context
from ..graph.constants import FLOATS, resolve
from ..lowerings.operators import OPSET_QUANTIZE
from ..report import Skip
from .form import Activation, match_activation
from .function import BY_KIND

OPSET = OPSET_QUANTIZE
COMPUTES = True


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Activation] | Skip | None:
    """Return the activation that ends in a node."""
    form = match_activation(node, context.is_output)
    if not isinstance(form, Activation):
        return form
    if resolve(form.x) is not None:
        return Skip("its input is a constant: the session folds it")
    if form.dtype not in FLOATS:
        return Skip(f"its type is {form.dtype or 'not known'}, not a float")
    return Rewrite(scope, form)


def replace(context: Context, matches: list[Rewrite[Activation]]) -> Skip | None:
    """Rewrite one activation."""
    form = matches[0].form
    at, dtype = context.editor.before(matches[0].scope, form.node), form.dtype or "float32"
    x, name = form.x, f"{form.kind}{context.report.replaced}"
    if form.bias is not None:
        x = at.op("Add", x, form.bias, name=f"{name}.biased", dtype=x.dtype)
    (y,) = at.call(BY_KIND[form.kind], context.as_float(at, x, dtype), name=name, node=form.node.name)
    at.deliver(at.as_type(y, dtype, name), form.node)
    return None
