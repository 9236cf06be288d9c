"""Calls that quantize what a normalization makes, once all passes are done."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..functions.function import DOMAIN
from ..functions.normalize_rows import BY_QUANTIZER
from ..report import TOGETHER
from .new import NewNode
from .shapes import rank
from .types import element_type
from .walk import is_standard, scopes

# Inputs of a normalization with a bias.
WITH_BIAS = 3


def compose_normalizations(graph: gs.Graph) -> None:
    """Let a normalization and the call that quantizes its rows be one call, in the place of the normalization."""
    for scope in scopes(graph):
        places = {id(node): place for place, node in enumerate(scope.nodes)}
        for place, node in enumerate(scope.nodes):
            readers = node.outputs[0].outputs if _is_normalization(node) else []
            quantizer = next((each for each in readers if each.domain == DOMAIN and each.op in BY_QUANTIZER), None)
            if quantizer is None or id(quantizer) not in places:
                continue
            # Zero points of a later call may depend on what is normalized.
            makers = [maker for tensor in quantizer.inputs[1:] for maker in tensor.inputs]
            if all(places.get(id(maker), place) < place for maker in makers):
                scope.nodes[place] = _composed(node, quantizer)
                places[id(scope.nodes[place])] = place


def _is_normalization(node: gs.Node) -> bool:
    """Tell whether a node normalizes the last axis of floats, with a scale and a bias as long."""
    if not is_standard(node) or node.op != "LayerNormalization" or len(node.inputs) != WITH_BIAS:
        return False
    x, *parameters = node.inputs
    axis, axes, length = node.attrs.get("axis", -1), rank(x), parameters[0].shape
    last = axis == -1 or (axes is not None and axis == axes - 1)
    alike = all(each.shape is not None and list(each.shape) == list(length or ()) for each in parameters)
    kinds = {element_type(tensor) for tensor in node.inputs}
    single = len(node.outputs) == 1 and node.attrs.get("stash_type", 1) == 1
    return last and single and alike and len(length or ()) == 1 and kinds == {"float32"}


def _composed(node: gs.Node, quantizer: gs.Node) -> gs.Node:
    """Return the call that takes the place of both, which make nothing any more."""
    inputs, outputs = [*node.inputs, *quantizer.inputs[1:]], [node.outputs[0], *quantizer.outputs]
    attrs = {**quantizer.attrs, "epsilon": float(node.attrs.get("epsilon", 1e-5))}
    names = [each.name for each in (node, quantizer) if each.name and not isinstance(each, NewNode)]
    for each in (node, quantizer):
        each.inputs.clear()
        each.outputs.clear()
    function = BY_QUANTIZER[quantizer.op]
    return (gs.Node if names else NewNode)(function.name, TOGETHER.join(names), attrs, inputs, outputs, DOMAIN)
