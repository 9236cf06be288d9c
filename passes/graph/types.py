"""Element types of tensors, followed through the operators' own schemas from what a graph declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..functions.function import DOMAIN
from .operators import Operator
from .walk import has_body, scopes

# Numpy names of the types that weights have.
FLOAT_NAMES = frozenset({"bfloat16", "float16", "float32", "float64"})
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
# Attributes that say the type of the first output, where an operator has one.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
# Types of inputs and outputs: a type variable's name, or an ONNX element type.
_Formals = tuple[tuple[str | int, ...], tuple[str | int, ...]]


def element_type(tensor: gs.Tensor) -> str | None:
    """Return the name of a tensor's numpy type, or None where it does not say."""
    kind = _declared(tensor)
    return None if kind is None else str(onnx.helper.tensor_dtype_to_np_dtype(kind).name)


def float_types(graph: gs.Graph) -> dict[str, str]:
    """Return the numpy name of the type of every float tensor, by tensor name; others are left out."""
    tensors = (tensor for scope in scopes(graph) for tensor in (*scope.inputs, *scope.tensors().values()))
    return {tensor.name: element_type(tensor) or "" for tensor in tensors if _declared(tensor) in _FLOATS}


def note_types(node: gs.Node, operator: Operator) -> None:
    """Give the outputs of a node that do not say their type the one that follows from its inputs."""
    for index, output in enumerate(node.outputs):
        if output.name and output.dtype is None and isinstance(output, gs.Variable):
            source = _source(node, index, operator)
            kind = source if isinstance(source, int) else _first_known(map(_declared, source))
            output.dtype = None if kind is None else onnx.helper.tensor_dtype_to_np_dtype(kind)


def _source(node: gs.Node, index: int, operator: Operator) -> int | list[gs.Tensor]:
    """Return the ONNX type of an output of a node where that is fixed, else the tensors that have the same type."""
    if has_body(node):
        results = next(node.subgraphs()).outputs[1 if node.op == "Loop" else 0 :]
        return list(results[index : index + 1])
    # Attributes of a call are those of nodes inside.
    said = _said(node) if index == 0 and node.domain != DOMAIN else None
    if said is not None:
        return said
    typed = node.inputs[operator.typed_by :][:1] if index == 0 and operator.typed_by is not None else []
    if typed and typed[0].name:
        return list(typed)
    if any(operator.types[index : index + 1]):
        return operator.types[index]
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
