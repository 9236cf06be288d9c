"""Calls of products that quantize their results, once all passes are done."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..functions.function import DOMAIN
from ..functions.product_rows import BY_BOTH, NAMES
from ..report import TOGETHER
from .new import NewNode
from .walk import scopes


def compose_product_rows(graph: gs.Graph) -> None:
    """Let a product's call quantize what only a quantizer reads of it: the call comes where the quantizer was."""
    for scope in scopes(graph):
        makers = {id(node.outputs[0]): node for node in scope.nodes if node.domain == DOMAIN and len(node.outputs) == 1}
        outputs = {id(tensor) for tensor in scope.outputs}
        for place, node in enumerate(scope.nodes):
            x = node.inputs[0] if node.domain == DOMAIN and node.inputs else None
            product = makers.get(id(x)) if x is not None and id(x) not in outputs and len(x.outputs) == 1 else None
            if product is not None and (product.op, node.op) in BY_BOTH:
                scope.nodes[place] = _composed(product, node)


def _composed(product: gs.Node, quantizer: gs.Node) -> gs.Node:
    """Return the call that takes the place of both, which make nothing any more."""
    both = (product, quantizer)
    function = BY_BOTH[product.op, quantizer.op]
    names = [each.name for each in both if each.name and not isinstance(each, NewNode)]
    inputs, outputs = [*product.inputs, *quantizer.inputs[1:]], list(quantizer.outputs)
    attrs = {**product.attrs, **{NAMES.get(name, name): value for name, value in quantizer.attrs.items()}}
    for each in both:
        each.inputs.clear()
        each.outputs.clear()
    return (gs.Node if names else NewNode)(function.name, TOGETHER.join(names), attrs, inputs, outputs, DOMAIN)
