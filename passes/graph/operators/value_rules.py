"""The elements of small tensors that each operator makes, from those that it reads: sizes, shapes, scalars."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..constants import load, small_values
from ..shapes import Shapes, parameter, product, slices
from ..shapes.known import MOST_VALUES
from ..shapes.sizes import Values, as_float, as_whole, chosen, each, lifted, values_of
from .record import Operator, Trait, ValueRule


def elements_of(found: Shapes, node: gs.Node, operator: Operator) -> Values | None:
    """Return the elements of a node's first output, or None where nothing is known of them."""
    if operator.values is not None:
        return operator.values(found, node)
    if operator.function is None or Trait.ELEMENTWISE not in operator.traits:
        return None
    read = [found.values(tensor) for tensor in node.inputs if tensor.name]
    known = [values for values in read if values is not None]
    return each(lifted(operator.function, operator.sizes), *known) if known and len(known) == len(read) else None


def _moved(rule: Callable[[Shapes, gs.Node, Values], Values | None]) -> ValueRule:
    """Return the rule of what moves the elements of its first input."""

    @wraps(rule)
    def moved(found: Shapes, node: gs.Node) -> Values | None:
        values = found.values(node.inputs[0])
        return None if values is None else rule(found, node, values)

    return moved


def filled(found: Shapes, node: gs.Node) -> Values | None:
    """Return the elements of ConstantOfShape."""
    dims, value = found.ints(node.inputs[0]), node.attrs.get("value")
    if dims is None or np.prod(dims) > MOST_VALUES:
        return None
    fill = values_of(np.zeros(1, np.float32) if value is None else load(value))
    return np.broadcast_to(fill.reshape(()), dims)


def concatenated(found: Shapes, node: gs.Node) -> Values | None:
    """Return the elements of Concat of vectors; None for each of one that only the length is known of."""
    parts = [_vector(found, tensor) for tensor in node.inputs]
    known = [part for part in parts if part is not None]
    vectors = len(known) == len(parts) and all(part.ndim == 1 for part in known)
    some = any(found.values(tensor) is not None for tensor in node.inputs)
    return np.concatenate(known) if vectors and some else None


def _vector(found: Shapes, tensor: gs.Tensor) -> Values | None:
    values, shape = found.values(tensor), found.shape(tensor)
    if values is None and shape is not None and len(shape) == 1 and shape[0].static is not None:
        return np.full(shape[0].static, None, object)
    return values


def count_of(found: Shapes, node: gs.Node) -> Values | None:
    """Return the element of Size."""
    shape = found.shape(node.inputs[0])
    return None if shape is None else np.asarray(product(shape), object)


def sizes_of(found: Shapes, node: gs.Node) -> Values | None:
    """Return the elements of Shape."""
    shape = found.shape(node.inputs[0])
    if shape is None:
        return None
    part = shape[int(node.attrs.get("start", 0)) : node.attrs.get("end")]
    values = np.empty(len(part), object)
    values[:] = part
    return values


def selected(found: Shapes, node: gs.Node) -> Values | None:
    """Return the elements of Where."""
    read = [values for values in map(found.values, node.inputs) if values is not None]
    return each(chosen, *read) if len(read) == len(node.inputs) else None


@_moved
def same(_found: Shapes, _node: gs.Node, values: Values) -> Values:
    """Return the elements of Identity."""
    return values


@_moved
def cast(_: Shapes, node: gs.Node, values: Values) -> Values:
    """Return the elements of Cast."""
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"]))).kind
    return each(as_float if kind == "f" else as_whole, values)


@_moved
def sliced(found: Shapes, node: gs.Node, values: Values) -> Values | None:
    """Return the elements of Slice."""
    cuts = [slice(None)] * values.ndim
    for axis, bounds in slices(found, node, values.ndim).items():
        numbers = [None if bound is None else bound.static for bound in bounds]
        if None in numbers:
            return None
        cuts[axis] = slice(*numbers)
    return values[tuple(cuts)]


@_moved
def gathered(_: Shapes, node: gs.Node, values: Values) -> Values | None:
    """Return the elements of Gather."""
    indices = small_values(node.inputs[1])
    return None if indices is None else np.take(values, indices.astype(int), int(node.attrs.get("axis", 0)))


@_moved
def reshaped(found: Shapes, node: gs.Node, values: Values) -> Values | None:
    """Return the elements of Reshape."""
    shape = found.ints(node.inputs[1])
    return None if shape is None else values.reshape(shape)


@_moved
def squeezed(found: Shapes, node: gs.Node, values: Values) -> Values:
    """Return the elements of Squeeze."""
    axes = parameter(found, node, 1, "axes")
    return np.squeeze(values, None if axes is None else tuple(axes))


@_moved
def unsqueezed(found: Shapes, node: gs.Node, values: Values) -> Values:
    """Return the elements of Unsqueeze."""
    return np.expand_dims(values, tuple(parameter(found, node, 1, "axes") or ()))
