"""What holds whenever a pass has run: `match` changed nothing, and the graph is one that ONNX takes.

Asked for by `run(..., checked=True)`, as tests do: it costs a walk over the graph before and after every pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from .context import Context
from .graph.editor import SHARED_BYTES
from .graph.new import NewConstant
from .graph.walk import is_standard, scopes, walk

# What a pass must not change while it matches, by name.
Fingerprint = dict[str, Any]


class BrokenContractError(Exception):
    """A pass did what no pass may do: a fault of the pass, not of the model."""


def fingerprint(context: Context) -> Fingerprint:
    """Return what `match` must leave as it is: graph, context, report, what was written."""
    graph = context.editor.graph
    parts: Fingerprint = {
        "the report": repr(context.report),
        "what is written": context.editor.written,
        "the weights stored": tuple(context.stored),
        "names of rows and weights": (dict(context.rows_of), dict(context.names)),
    }
    for number, scope in enumerate(scopes(graph)):
        parts[f"graph {number}"] = (_ids(scope.nodes), _ids(scope.inputs), _ids(scope.outputs), scope.opset)
    for _, node in walk(graph):
        attributes = sorted((name, _identity(value)) for name, value in node.attrs.items())
        parts[f"node {node.name or node.op} ({id(node)})"] = (
            *(node.op, node.name, node.domain, attributes),
            *(_ids(node.inputs), _ids(node.outputs)),
        )
        for tensor in (*node.inputs, *node.outputs):
            parts[f"tensor {tensor.name} ({id(tensor)})"] = (*_described(tensor), _ids(tensor.outputs))
    return parts


def check_unchanged(before: Fingerprint, context: Context) -> None:
    """Raise BrokenContractError where matching changed something."""
    after = fingerprint(context)
    changed = next((name for name in {**before, **after} if before.get(name) != after.get(name)), None)
    if changed is not None:
        raise BrokenContractError(f"pass {context.report.name}: match changes {changed}")


def refusal(graph: gs.Graph) -> str | None:
    """Return what ONNX's checker says against a graph, or None.

    It asks for nodes in order in every scope, no tensor made twice, and operators with the inputs and attributes that
    they have.
    """
    try:
        onnx.checker.check_model(_skeleton(graph))
    except onnx.checker.ValidationError as error:
        return str(error)
    return None


def check_graph(graph: gs.Graph, pass_name: str) -> None:
    """Raise BrokenContractError where a graph is none, after a pass, or another step, that was given one.

    ONNX's checker takes it, every constant has a name of its own, and what passes wrote stands once.
    """
    if said := refusal(graph):
        raise BrokenContractError(f"pass {pass_name}: {said}")
    names: dict[str, gs.Constant] = {}
    contents: dict[tuple[Any, ...], gs.Constant] = {}
    for constant in _constants(graph):
        if names.setdefault(constant.name, constant) is not constant:
            raise BrokenContractError(f"pass {pass_name}: two constants are called {constant.name!r}")
        values = constant._values
        if isinstance(constant, NewConstant) and isinstance(values, np.ndarray) and values.nbytes <= SHARED_BYTES:
            key = (values.dtype.str, values.shape, values.tobytes())
            if contents.setdefault(key, constant) is not constant:
                twice = f"{contents[key].name!r} and {constant.name!r}"
                raise BrokenContractError(f"pass {pass_name}: {twice} are the same constant")


def _ids(objects: Iterable[Any]) -> tuple[int, ...]:
    return tuple(map(id, objects))


def _identity(value: Any) -> Any:
    """Return what is equal as long as an attribute stays the same."""
    return id(value) if isinstance(value, gs.Graph | gs.Tensor) else repr(value)


def _described(tensor: gs.Tensor) -> tuple[Any, ...]:
    if isinstance(tensor, gs.Constant):
        return tensor.name, id(tensor._values)
    return tensor.name, repr(tensor.shape), repr(tensor.dtype)


def _constants(graph: gs.Graph) -> Iterable[gs.Constant]:
    """Return the constants that nodes and outputs read, each once."""
    read = [tensor for _, node in walk(graph) for tensor in node.inputs]
    read += [tensor for scope in scopes(graph) for tensor in scope.outputs]
    return {id(tensor): tensor for tensor in read if isinstance(tensor, gs.Constant)}.values()


def _skeleton(graph: gs.Graph) -> onnx.ModelProto:
    """Return a model of a graph for the checker, whose constants are inputs."""
    proto = _graph(graph)
    given = {tensor.name for tensor in (*graph.inputs, *_constants(graph))}
    for value in (*proto.input, *proto.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        value.type.tensor_type.shape.SetInParent()
    listed = {value.name for value in proto.input}
    proto.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ()) for name in sorted(given - listed)
    )
    domains = {node.domain for _, node in walk(graph) if not is_standard(node)}
    imports = {opset.domain: opset.version for opset in graph.import_domains or ()}
    imports = dict.fromkeys(domains, 1) | imports | {"": graph.opset}
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in imports.items()]
    return onnx.helper.make_model(proto, ir_version=onnx.IR_VERSION, opset_imports=opsets)


def _graph(graph: gs.Graph) -> onnx.GraphProto:
    proto = onnx.GraphProto(name=graph.name or "graph")
    proto.input.extend(onnx.ValueInfoProto(name=tensor.name) for tensor in graph.inputs)
    proto.output.extend(onnx.ValueInfoProto(name=tensor.name) for tensor in graph.outputs)
    for node in graph.nodes:
        made = proto.node.add(op_type=node.op, name=node.name or "", domain=node.domain or "")
        made.input.extend(tensor.name for tensor in node.inputs)
        made.output.extend(tensor.name for tensor in node.outputs)
        made.attribute.extend(_attribute(name, value) for name, value in node.attrs.items())
    return proto


def _attribute(name: str, value: Any) -> onnx.AttributeProto:
    if isinstance(value, onnx.AttributeProto):
        return value
    if isinstance(value, gs.Graph):
        value = _graph(value)
    elif isinstance(value, gs.Constant):
        value = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[0])
    elif isinstance(value, type | np.dtype):
        value = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value))
    elif isinstance(value, list) and not value:
        return onnx.AttributeProto(name=name, type=getattr(value, "kind", onnx.AttributeProto.INTS))
    return onnx.helper.make_attribute(name, value)
