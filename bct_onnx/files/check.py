"""What ONNX's own checker says of a model, its large weights left where they are."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from . import native
from .order import graphs_of


def refusal(model: onnx.ModelProto) -> str | None:
    """Return the line with which onnx.checker refuses a model as `read` returns it, types and shapes inferred; or None.

    Initializers that are not in the message count as inputs. A model with other such tensors is not checked.
    """
    known = onnx.ModelProto()
    known.CopyFrom(model)
    for graph in list(graphs_of(known.graph)):
        kept = []
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                known.graph.input.extend([] if any(v.name == tensor.name for v in known.graph.input) else [value])
            else:
                kept.append(tensor)
        kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    if any(_elsewhere(known.graph)):
        return None
    try:
        native.check(known)
    except native.NativeError as error:
        return str(error)
    return None


def _elsewhere(graph: onnx.GraphProto) -> Iterator[bool]:
    """Tell of the tensors in attributes whether their data is elsewhere."""
    for inner in graphs_of(graph):
        for node in inner.node:
            for attribute in node.attribute:
                yield attribute.t.data_location == onnx.TensorProto.EXTERNAL
