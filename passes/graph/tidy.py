"""What exporters leave behind: constants as nodes, equal nodes and constants many times, long inner names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues

from .constants import constant_bytes, load
from .editor import SHARED_BYTES
from .new import NewNode, fresh_name, redirect
from .operators import is_random
from .walk import has_body, output_names, scopes, walk

# Longer names of inner tensors become t0, t1, ...; the nodes keep theirs.
LONGEST_NAME = 12

_CONSTANT_ATTRIBUTES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def lift_constant_nodes(graph: gs.Graph) -> None:
    """Turn Constant nodes into initializers, in bodies too, so that passes see one form of constant."""
    outputs = output_names(graph)
    for _, node in walk(graph):
        values = _constant_values(node)
        if values is None or node.outputs[0].name in outputs:
            continue
        output = node.outputs[0]
        redirect(output, gs.Constant(output.name, values))
        node.outputs.clear()


def merge_equal(graph: gs.Graph) -> None:
    """Let equal small constants be one, and nodes that compute the same from the same."""
    outputs = output_names(graph)
    constants: dict[tuple[Any, ...], gs.Constant] = {}
    nodes: dict[tuple[Any, ...], gs.Node] = {}
    for scope, node in walk(graph):
        for tensor in list(node.inputs):
            if isinstance(tensor, gs.Constant) and tensor.name not in outputs:
                key = _constant_key(tensor)
                same = constants.setdefault(key, tensor) if key else tensor
                if same is not tensor:
                    redirect(tensor, same)
        key = _node_key(scope, node)
        if key is None or any(output.name in outputs for output in node.outputs):
            continue
        twin = nodes.setdefault(key, node)
        if twin is not node:
            for output, same_output in zip(list(node.outputs), twin.outputs, strict=True):
                redirect(output, same_output)
            node.outputs.clear()


def name_constants(graph: gs.Graph) -> None:
    """Give constants names that no other tensor has: the branches of an If may call different things the same.

    A constant is written once for all that read it, where the other branch sees its name, too.
    """
    used = [tensor for _, node in walk(graph) for tensor in (*node.inputs, *node.outputs) if tensor.name]
    tensors = {id(tensor): tensor for tensor in used}
    constants = [tensor for tensor in tensors.values() if isinstance(tensor, gs.Constant)]
    taken = {tensor.name for scope in scopes(graph) for tensor in (*scope.inputs, *scope.outputs)}
    taken |= {tensor.name for tensor in tensors.values() if not isinstance(tensor, gs.Constant)}
    outputs = output_names(graph)
    for constant in constants:
        if constant.name not in outputs:
            constant.name = fresh_name(constant.name, taken)


def shorten_names(graph: gs.Graph) -> None:
    """Give inner tensors with long names short ones, and nodes that are new, or have no name, that of their result."""
    fixed = output_names(graph) | {tensor.name for scope in scopes(graph) for tensor in scope.inputs}
    taken = fixed | {tensor.name for scope in scopes(graph) for tensor in scope.tensors().values()}
    count = 0
    for _, node in walk(graph):
        for output in node.outputs:
            if len(output.name) <= LONGEST_NAME or output.name in fixed:
                continue
            while f"t{count}" in taken:
                count += 1
            output.name = f"t{count}"
            count += 1
    _name_nodes(graph)


def _name_nodes(graph: gs.Graph) -> None:
    nodes = [node for _, node in walk(graph)]
    new = [node for node in nodes if node.outputs and (isinstance(node, NewNode) or not node.name)]
    taken = {node.name for node in nodes} - {node.name for node in new}
    for node in new:
        node.name = fresh_name(next((output.name for output in node.outputs if output.name), node.op), taken)


def _constant_values(node: gs.Node) -> LazyValues | NDArray[Any] | None:
    if node.op != "Constant":
        return None
    value = node.attrs.get("value")
    if isinstance(value, gs.Constant):
        values: LazyValues | NDArray[Any] = value._values
        return values
    for name, dtype in _CONSTANT_ATTRIBUTES.items():
        if name in node.attrs:
            return np.array(node.attrs[name], dtype)
    return None


def _constant_key(constant: gs.Constant) -> tuple[Any, ...] | None:
    if constant_bytes(constant) > SHARED_BYTES or not isinstance(constant.dtype, np.dtype):
        return None
    values = load(constant)
    return None if values.dtype == object else (values.dtype.str, values.shape, values.tobytes())


def _node_key(scope: gs.Graph, node: gs.Node) -> tuple[Any, ...] | None:
    if is_random(node) or not node.outputs or has_body(node):
        return None
    inputs = tuple(id(tensor) if tensor.name else None for tensor in node.inputs)
    outputs = tuple(bool(tensor.name) for tensor in node.outputs)
    return (id(scope), node.op, node.domain, inputs, outputs, _attributes_key(node))


def _attributes_key(node: gs.Node) -> str | int:
    if any(isinstance(value, gs.Tensor) for value in node.attrs.values()):
        return id(node)
    return repr(sorted(node.attrs.items()))
