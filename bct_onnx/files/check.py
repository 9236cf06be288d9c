"""What ONNX's own checker says of a model, its large weights left where they are."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from .order import bodies


def refusal(model: onnx.ModelProto) -> str | None:
    """Return the line with which onnx.checker refuses a model as `read` returns it, types and shapes inferred; or None.

    Initializers that are not in the message count as inputs. A model with other such tensors is not checked.
    """
    known = onnx.ModelProto()
    known.CopyFrom(model)
    for graph in list(_graphs(known.graph)):
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
        onnx.checker.check_model(known, full_check=True)
    except Exception as error:  # the checker's and those of shape inference have no common base
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return None


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from _graphs(body)


def _elsewhere(graph: onnx.GraphProto) -> Iterator[bool]:
    """Tell of the tensors in attributes whether their data is elsewhere."""
    for inner in _graphs(graph):
        for node in inner.node:
            for attribute in node.attribute:
                yield attribute.t.data_location == onnx.TensorProto.EXTERNAL
