"""Float types of all tensors, followed from inputs and constants through the operators' own schemas."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from .editor import walk

# Attributes that say the type of the first output, where an operator has one.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
_Formals = tuple[tuple[str | int, ...], tuple[str | int, ...]]


def float_types(graph: gs.Graph) -> dict[str, str]:
    """Return the numpy name of the type of every float tensor, by tensor name; others are left out."""
    types: dict[str, int] = {}
    for scope in (graph, *graph.subgraphs(recursive=True)):
        for tensor in (*scope.inputs, *scope.tensors().values()):
            kind = _declared(tensor)
            if kind is not None:
                types[tensor.name] = kind
    nodes = [node for _, node in walk(graph)]
    # What a body computes is known only after the node that holds it.
    for _ in range(2 if any(has_body(node) for node in nodes) else 1):
        for node in nodes:
            _propagate(node, types, int(graph.opset))
    names = {int(kind): onnx.helper.tensor_dtype_to_np_dtype(kind).name for kind in _FLOATS}
    return {name: names[kind] for name, kind in types.items() if kind in names}


def has_body(node: gs.Node) -> bool:
    """Tell whether a node is an If, a Loop, a Scan or the like."""
    return next(node.subgraphs(), None) is not None


def _propagate(node: gs.Node, types: dict[str, int], opset: int) -> None:
    for index, output in enumerate(node.outputs):
        if output.name and output.name not in types:
            kind = _body_type(node, index, types) if has_body(node) else _output_type(node, index, types, opset)
            if kind is not None:
                types[output.name] = kind


def _body_type(node: gs.Node, index: int, types: dict[str, int]) -> int | None:
    results = next(node.subgraphs()).outputs[1 if node.op == "Loop" else 0 :]
    return types.get(results[index].name) if index < len(results) else None


def _output_type(node: gs.Node, index: int, types: dict[str, int], opset: int) -> int | None:
    said = _said(node) if index == 0 else None
    if said is not None:
        return said
    kinds = [types.get(tensor.name) for tensor in node.inputs]
    formals = _schema(node.op, node.domain or "", opset)
    if formals is None:
        return next((kind for kind in kinds if kind in _FLOATS), None)
    inputs, outputs = formals
    wanted = outputs[min(index, len(outputs) - 1)]
    if isinstance(wanted, int):
        return wanted
    bound = (kind for i, kind in enumerate(kinds) if kind is not None and inputs[min(i, len(inputs) - 1)] == wanted)
    return next(bound, None)


def _said(node: gs.Node) -> int | None:
    """Return the type of the first output where an attribute says it."""
    for name in _TYPE_ATTRIBUTES:
        if isinstance(node.attrs.get(name), int) and node.attrs[name]:
            return int(node.attrs[name])
    if node.op in ("ConstantOfShape", "Constant"):
        return _declared(node.attrs["value"]) if "value" in node.attrs else int(onnx.TensorProto.FLOAT)
    return None


@lru_cache(maxsize=512)
def _schema(op: str, domain: str, opset: int) -> _Formals | None:
    """Return the types of inputs and outputs: a type variable's name, or a tensor type; None for unknown operators."""
    if domain not in ("", "ai.onnx") or not onnx.defs.has(op):
        return None
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:  # newer than the opset, which ONNX Runtime runs all the same
        schema = onnx.defs.get_schema(op)
    return tuple(map(_formal, schema.inputs)) or ("",), tuple(map(_formal, schema.outputs)) or ("",)


def _formal(parameter: Any) -> str | int:
    text: str = parameter.type_str
    name = text.removeprefix("tensor(").removesuffix(")")
    return text if name == text else int(onnx.TensorProto.DataType.Value(name.upper()))


def _declared(tensor: Any) -> int | None:
    """Return the type that a tensor says it has."""
    dtype = getattr(tensor, "dtype", None)
    if isinstance(dtype, int):
        return dtype
    try:
        return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))) if dtype is not None else None
    except (TypeError, ValueError, KeyError):
        return None
