"""Calls of products with what follows them, once all passes are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_graphsurgeon as gs

from ..functions.endings import BIAS, FOLLOWED, GELU, GELU_TANH, QUICK_GELU, RELU, RESIDUAL, SILU, Ending
from ..functions.function import DOMAIN, function_of
from ..report import TOGETHER
from .new import NewNode
from .shapes import rank
from .walk import is_standard, scopes

_GELUS = {"none": GELU, "tanh": GELU_TANH}


@dataclass(frozen=True)
class _Step:
    """What follows a call: an ending, the nodes that it takes the place of, and what it adds to the call."""

    ending: Ending
    nodes: tuple[gs.Node, ...]
    inputs: tuple[gs.Tensor, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)


def compose_endings(graph: gs.Graph) -> None:
    """Let a product's call compute what alone reads it: a bias, an activation function, a residual.

    The call comes where the last of these nodes was; its name is theirs together.
    """
    for scope in scopes(graph):
        places = {id(node): place for place, node in enumerate(scope.nodes)}
        outputs = {id(tensor) for tensor in scope.outputs}
        for place in range(len(scope.nodes)):
            node = scope.nodes[place]
            step = _following(node, outputs) if node.domain == DOMAIN and len(node.outputs) == 1 else None
            function = FOLLOWED.get((node.op, step.ending.name)) if step is not None else None
            if step is not None and function is not None and all(id(each) in places for each in step.nodes):
                last = places[id(step.nodes[-1])]
                scope.nodes[last] = _composed(function.name, node, step)
                places[id(scope.nodes[last])] = last


def _composed(name: str, node: gs.Node, step: _Step) -> gs.Node:
    """Return the call that takes the place of a call and what follows it, which make nothing any more."""
    replaced = (node, *step.nodes)
    names = [each.name for each in replaced if each.name and not isinstance(each, NewNode)]
    inputs, outputs = [*node.inputs, *step.inputs], list(step.nodes[-1].outputs)
    attrs = {**node.attrs, **step.attrs}
    for each in replaced:
        each.inputs.clear()
        each.outputs.clear()
    return (gs.Node if names else NewNode)(name, TOGETHER.join(names), attrs, inputs, outputs, DOMAIN)


def _following(node: gs.Node, outputs: set[int]) -> _Step | None:
    """Return what alone reads the result of a node, where that is an ending."""
    (x,) = node.outputs
    readers = {id(reader): reader for reader in x.outputs}
    if id(x) in outputs or not readers:
        return None
    if len(readers) > 1:
        return _silu(x, list(readers.values()))
    (reader,) = readers.values()
    if reader.domain == "com.microsoft" and reader.op == "QuickGelu":
        return _Step(QUICK_GELU, (reader,), attrs={"alpha": float(reader.attrs.get("alpha", 1.702))})
    if not is_standard(reader):
        return None
    if reader.op == "Relu":
        return _Step(RELU, (reader,))
    if reader.op == "Gelu":
        return _Step(_GELUS[reader.attrs.get("approximate", "none")], (reader,))
    return _sum(node, reader) if reader.op == "Add" and len(x.outputs) == 1 else None


def _silu(x: gs.Tensor, readers: list[gs.Node]) -> _Step | None:
    """Return x * Sigmoid(x)."""
    by_op = {reader.op: reader for reader in readers if is_standard(reader)}
    gate, product = by_op.get("Sigmoid"), by_op.get("Mul")
    if len(readers) != 2 or gate is None or product is None or len(x.outputs) != 2:
        return None
    alone = len(gate.outputs[0].outputs) == 1 and gate.outputs[0].outputs[0] is product
    return _Step(SILU, (gate, product)) if alone else None


def _sum(node: gs.Node, reader: gs.Node) -> _Step | None:
    """Return the sum with one row for all, or with as many as there may be; others stay nodes of their own."""
    (x,) = node.outputs
    (other,) = (tensor for tensor in reader.inputs if tensor is not x)
    axes, others, columns = rank(x), rank(other), _columns(node)
    if axes is None or others is None or not 0 < others <= axes or columns is None or other.shape[-1] != columns:
        return None
    if all(length == 1 for length in other.shape[:-1]):
        return _Step(BIAS, (reader,), (other,))
    return _Step(RESIDUAL, (reader,), (other,)) if others == axes else None


def _columns(node: gs.Node) -> int | None:
    """Return the columns of a product, of which there is a scale each, or None where they are not known."""
    function = function_of(node)
    names = function.inputs.split(", ") if function is not None else []
    shape = node.inputs[names.index("scale")].shape if "scale" in names else None
    return shape[-1] if shape and isinstance(shape[-1], int) else None
