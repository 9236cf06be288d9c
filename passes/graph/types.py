"""Element types of tensors, followed through the operators' own schemas from what a graph declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from .editor import has_body, scopes, walk

# Numpy names of the types that weights have.
FLOAT_NAMES = frozenset({"bfloat16", "float16", "float32", "float64"})
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
# Attributes that say the type of the first output, where an operator has one.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
# Operators of the runtime's own whose first output may hold integers though they read floats, too: the input that has
# its type. Where that is left out, it is the type that _LEFT_OUT says, or float32.
_TYPED_BY = {
    **dict.fromkeys(("QLinearAdd", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu"), 0),
    **dict.fromkeys(("QLinearMul", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax"), 0),
    **dict.fromkeys(
        ("BeamSearch", "GreedySearch", "QLinearConcat", "QLinearWhere", "Sampling", "WhisperBeamSearch"), 1
    ),
    "QuantizeLinear": 2,
    "QLinearConv": 7,
    "QGemm": 8,
}
_LEFT_OUT = {"QuantizeLinear": onnx.TensorProto.UINT8}
# Types of inputs and outputs: a type variable's name, or an ONNX element type.
_Formals = tuple[tuple[str | int, ...], tuple[str | int, ...]]


def element_type(tensor: gs.Tensor) -> str | None:
    """Return the name of a tensor's numpy type, or None where neither it nor what it comes from says.

    Looks back from the tensor, which a pass may have written.
    """
    kind = _declared(tensor)
    while kind is None and tensor.inputs:
        node = tensor.inputs[0]
        source = _source(node, next(i for i, output in enumerate(node.outputs) if output is tensor))
        if isinstance(source, int):
            kind = source
        elif source:
            kind, tensor = _first_known(map(_declared, source)), source[0]
        else:
            break
    return None if kind is None else _name(kind)


def float_types(graph: gs.Graph) -> dict[str, str]:
    """Return the numpy name of the type of every float tensor, by tensor name; others are left out."""
    tensors = (t for scope in scopes(graph) for t in (*scope.inputs, *scope.tensors().values()))
    kinds = {tensor.name: kind for tensor in tensors if (kind := _declared(tensor)) is not None}
    nodes = [node for _, node in walk(graph)]
    # What a body computes is known only after the node that holds it.
    for _ in range(2 if any(map(has_body, nodes)) else 1):
        for node in nodes:
            for index, output in enumerate(node.outputs):
                source = _source(node, index) if output.name and output.name not in kinds else []
                kind = source if isinstance(source, int) else _first_known(kinds.get(t.name) for t in source)
                if kind is not None:
                    kinds[output.name] = kind
    return {name: _name(kind) for name, kind in kinds.items() if kind in _FLOATS}


def _name(kind: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind).name)


def _source(node: gs.Node, index: int) -> int | list[gs.Tensor]:
    """Return the ONNX type of an output of a node where that is fixed, else the tensors that have the same type."""
    if has_body(node):
        results = next(node.subgraphs()).outputs[1 if node.op == "Loop" else 0 :]
        return list(results[index : index + 1])
    said = _said(node) if index == 0 else None
    if said is not None:
        return said
    if node.domain == "com.microsoft" and node.op in _TYPED_BY and index == 0:
        typed = node.inputs[_TYPED_BY[node.op] :][:1]
        return typed if typed and typed[0].name else int(_LEFT_OUT.get(node.op, onnx.TensorProto.FLOAT))
    formals = _schema(node.op, node.domain or "")
    if formals is None:  # most likely the float among the inputs
        return [tensor for tensor in node.inputs if tensor.name and _declared(tensor) in (None, *_FLOATS)]
    inputs, outputs = formals
    wanted = outputs[min(index, len(outputs) - 1)]
    if isinstance(wanted, int):
        return wanted
    return [tensor for i, tensor in enumerate(node.inputs) if inputs[min(i, len(inputs) - 1)] == wanted and tensor.name]


def _first_known(kinds: Iterable[int | None]) -> int | None:
    """Return the first float type, or else the first type, or None."""
    known = [kind for kind in kinds if kind is not None]
    return next((kind for kind in known if kind in _FLOATS), known[0] if known else None)


def _said(node: gs.Node) -> int | None:
    """Return the type of the first output where an attribute says it."""
    for name in _TYPE_ATTRIBUTES:
        if isinstance(node.attrs.get(name), int) and node.attrs[name]:
            return int(node.attrs[name])
    if node.op in ("ConstantOfShape", "Constant"):
        return _declared(node.attrs["value"]) if "value" in node.attrs else int(onnx.TensorProto.FLOAT)
    return None


@lru_cache(maxsize=512)
def _schema(op: str, domain: str) -> _Formals | None:
    """Return the types of inputs and outputs, None for unknown operators."""
    if domain not in ("", "ai.onnx") or not onnx.defs.has(op):
        return None
    schema = onnx.defs.get_schema(op)
    allowed = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    inputs, outputs = (
        tuple(_formal(formal.type_str, allowed) for formal in formals) or ("",)
        for formals in (schema.inputs, schema.outputs)
    )
    # Before the scale could have another type than the output, it said the type.
    return (inputs, (inputs[1],)) if op == "DequantizeLinear" else (inputs, outputs)


def _formal(text: str, allowed: Mapping[str, Sequence[str]]) -> str | int:
    """Return a type variable's name, or the type itself where it is the only one allowed."""
    kinds = allowed.get(text, [text])
    name = kinds[0].removeprefix("tensor(").removesuffix(")")
    return text if len(kinds) > 1 or name == kinds[0] else int(onnx.TensorProto.DataType.Value(name.upper()))


def _declared(tensor: Any) -> int | None:
    """Return the type that a tensor says it has."""
    dtype = getattr(tensor, "dtype", None)
    if isinstance(dtype, int):
        return dtype
    try:
        return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))) if dtype is not None else None
    except (TypeError, ValueError, KeyError):
        return None
