"""What ONNX's own checker says of a model, its large weights left where they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from . import native
from .order import graphs_of


def refusal(model: onnx.ModelProto) -> str | None:
    """Return the line with which onnx.checker refuses a model as `read` returns it, types and shapes inferred; or None.

    Constants that are not in the message count as inputs. A model with other such tensors is not checked.
    """
    shown = _shown(model)
    return None if shown is None else _said(shown)


def is_accepted(model: onnx.ModelProto) -> bool:
    """Tell whether onnx.checker sees all of a model and takes it."""
    shown = _shown(model)
    return shown is not None and _said(shown) is None


def _said(model: onnx.ModelProto) -> str | None:
    try:
        native.check(model)
    except native.NativeError as error:
        return str(error)
    return None


def _shown(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a model without the constants that are elsewhere, which become inputs; None where other tensors are."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    inputs = {value.name: value for value in known.graph.input}
    # From within: what a graph keeps of its nodes are copies.
    for graph in reversed(list(graphs_of(known.graph))):
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                inputs.setdefault(tensor.name, _value(tensor.name, tensor))
        for node in graph.node:
            if node.op_type == "Constant" and any(_elsewhere(node)):
                inputs.setdefault(node.output[0], _value(node.output[0], node.attribute[0].t))
        _replace(graph.initializer, [t for t in graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL])
        _replace(graph.node, [n for n in graph.node if n.op_type != "Constant" or not any(_elsewhere(n))])
    _replace(known.graph.input, list(inputs.values()))
    if any(found for graph in graphs_of(known.graph) for node in graph.node for found in _elsewhere(node)):
        return None
    return known


def _value(name: str, tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)


def _replace(field: Any, messages: list[Any]) -> None:
    """Let a repeated field hold some of its messages."""
    copies = [type(message).FromString(message.SerializeToString()) for message in messages]
    del field[:]
    field.extend(copies)


def _elsewhere(node: onnx.NodeProto) -> Iterator[bool]:
    """Tell of the tensors in a node's attributes whether their data is elsewhere."""
    for attribute in node.attribute:
        yield attribute.t.data_location == onnx.TensorProto.EXTERNAL
