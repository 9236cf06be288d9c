"""Calls that quantize what a normalization makes, once all passes are done."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ..functions.function import DOMAIN, Function
from ..functions.normalize_rows import BY_QUANTIZER, EVEN
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
        _compose_even(scope)


def _compose_even(scope: gs.Graph) -> None:
    """Let what is normalized for codes alone, and what is for floats, be one call, in the place of the first."""
    places = {id(node): place for place, node in enumerate(scope.nodes)}
    outputs = {id(tensor) for tensor in scope.outputs}
    for node in list(scope.nodes):
        if node.domain != DOMAIN or node.op not in EVEN or node.outputs[0].outputs or id(node.outputs[0]) in outputs:
            continue
        others = [each for each in node.inputs[0].outputs if id(each) in places and _is_twin(each, node)]
        if not others:
            continue
        both = others[0], node
        place = min(places[id(each)] for each in both)
        makers = [maker for each in both for tensor in each.inputs for maker in tensor.inputs]
        if all(places.get(id(maker), -1) < place for maker in makers):
            scope.nodes[place] = _even(*both)


def _is_twin(node: gs.Node, call: gs.Node) -> bool:
    """Tell whether a node normalizes what a call does, in the same way but for gain and bias."""
    alike = _is_normalization(node) and node.inputs[0] is call.inputs[0]
    return alike and _epsilon(node) == np.float32(call.attrs["epsilon"])


def _epsilon(node: gs.Node) -> np.float32:
    return np.float32(node.attrs.get("epsilon", 1e-5))


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
    return _call(BY_QUANTIZER[quantizer.op], attrs, inputs, outputs, (node, quantizer))


def _even(node: gs.Node, quantized: gs.Node) -> gs.Node:
    """Return the call that takes the place of a normalization, and of the call that quantizes another of the same."""
    _, gain, bias, *zeros = quantized.inputs
    inputs, outputs = [*node.inputs, gain, bias, *zeros], [node.outputs[0], *quantized.outputs[1:]]
    return _call(EVEN[quantized.op], dict(quantized.attrs), inputs, outputs, (node, quantized))


def _call(
    function: Function,
    attrs: dict[str, Any],
    inputs: list[gs.Tensor],
    outputs: list[gs.Tensor],
    replaced: tuple[gs.Node, ...],
) -> gs.Node:
    """Return a call named after the nodes that it takes the place of, which make nothing any more."""
    names = [each.name for each in replaced if each.name and not isinstance(each, NewNode)]
    for each in replaced:
        each.inputs.clear()
        each.outputs.clear()
    return (gs.Node if names else NewNode)(function.name, TOGETHER.join(names), attrs, inputs, outputs, DOMAIN)
