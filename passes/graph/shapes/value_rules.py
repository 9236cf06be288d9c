"""The elements of small tensors that each operator makes, from those that it reads: sizes, shapes, scalars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..constants import load, small_values
from .known import MOST_VALUES, Shapes, parameter, slices
from .sizes import ARITHMETIC, Values, as_float, as_whole, each, product, values_of


def elements_of(found: Shapes, node: gs.Node) -> Values | None:
    """Return the elements of a node's output, or None where nothing is known of them."""
    if node.op in ("Shape", "Size"):
        return _shape_values(found, node)
    if node.op == "ConstantOfShape":
        return _filled(found, node)
    read = [found.values(tensor) for tensor in node.inputs if tensor.name]
    known = [values for values in read if values is not None]
    if node.op in ARITHMETIC and len(known) == len(read):
        return each(ARITHMETIC[node.op], *known)
    if node.op in _MOVES and read and read[0] is not None:
        return _MOVES[node.op](found, node, read[0])
    return _joined(found, node) if node.op == "Concat" and known else None


def _filled(found: Shapes, node: gs.Node) -> Values | None:
    dims, value = found.ints(node.inputs[0]), node.attrs.get("value")
    if dims is None or np.prod(dims) > MOST_VALUES:
        return None
    fill = values_of(np.zeros(1, np.float32) if value is None else load(value))
    return np.broadcast_to(fill.reshape(()), dims)


def _joined(found: Shapes, node: gs.Node) -> Values | None:
    parts = [_vector(found, tensor) for tensor in node.inputs]
    known = [part for part in parts if part is not None]
    vectors = len(known) == len(parts) and all(part.ndim == 1 for part in known)
    return np.concatenate(known) if vectors else None


def _vector(found: Shapes, tensor: gs.Tensor) -> Values | None:
    """Return the elements of a vector, None for each where only the length is known."""
    values, shape = found.values(tensor), found.shape(tensor)
    if values is None and shape is not None and len(shape) == 1 and shape[0].static is not None:
        return np.full(shape[0].static, None, object)
    return values


def _shape_values(found: Shapes, node: gs.Node) -> Values | None:
    shape = found.shape(node.inputs[0])
    if shape is None:
        return None
    if node.op == "Size":
        return np.asarray(product(shape), object)
    part = shape[int(node.attrs.get("start", 0)) : node.attrs.get("end")]
    values = np.empty(len(part), object)
    values[:] = part
    return values


def _cast(_: Shapes, node: gs.Node, values: Values) -> Values:
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"]))).kind
    return each(as_float if kind == "f" else as_whole, values)


def _slice_values(found: Shapes, node: gs.Node, values: Values) -> Values | None:
    cuts = [slice(None)] * values.ndim
    for axis, bounds in slices(found, node, values.ndim).items():
        numbers = [None if bound is None else bound.static for bound in bounds]
        if None in numbers:
            return None
        cuts[axis] = slice(*numbers)
    return values[tuple(cuts)]


def _gather_values(_: Shapes, node: gs.Node, values: Values) -> Values | None:
    indices = small_values(node.inputs[1])
    return None if indices is None else np.take(values, indices.astype(int), int(node.attrs.get("axis", 0)))


def _reshaped_values(found: Shapes, node: gs.Node, values: Values) -> Values | None:
    shape = found.ints(node.inputs[1])
    return None if shape is None else values.reshape(shape)


def _squeeze_values(found: Shapes, node: gs.Node, values: Values) -> Values:
    axes = parameter(found, node, 1, "axes")
    return np.squeeze(values, None if axes is None else tuple(axes))


# Operators that move elements: functions of the first input's values.
_MOVES: dict[str, Callable[[Shapes, gs.Node, Values], Values | None]] = {
    "Cast": _cast,
    "Gather": _gather_values,
    "Identity": lambda _found, _node, values: values,
    "Reshape": _reshaped_values,
    "Slice": _slice_values,
    "Squeeze": _squeeze_values,
    "Unsqueeze": lambda found, node, values: np.expand_dims(values, tuple(parameter(found, node, 1, "axes") or ())),
}
