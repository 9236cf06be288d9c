"""Parts of the rules for shapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import onnx_graphsurgeon as gs

from ..shapes import ONE, Shape, Shapes, Size, broadcast
from .record import ShapeRule

MATRIX = 2


def of(*numbers: int) -> Callable[[Callable[..., Shape | None]], ShapeRule]:
    """Return what makes a rule for one output of a function of the shapes of inputs, which all have to be known."""

    def made(function: Callable[..., Shape | None]) -> ShapeRule:
        @wraps(function)
        def rule(found: Shapes, node: gs.Node) -> list[Shape | None]:
            shapes = [found.shape(node.inputs[number]) for number in numbers]
            return [None if None in shapes else function(found, node, *shapes)]

        return rule

    return made


def like(number: int) -> ShapeRule:
    """Return the rule of what has the shape of an input."""
    return of(number)(lambda _found, _node, shape: shape)


first = like(0)


def rows_of_first(found: Shapes, node: gs.Node) -> list[Shape | None]:
    """Return the axes of the first input for all outputs, the last one of a size of its own."""
    x = found.shape(node.inputs[0])
    return [x and (*x[:-1], found.fresh()) for _ in node.outputs]


def with_last_attribute(name: str) -> ShapeRule:
    """Return the rule of what has the axes of its first input, the last one as long as an attribute says."""
    return of(0)(lambda _found, node, x: (*x[:-1], Size.known(node.attrs[name])))


def joined(*numbers: int) -> ShapeRule:
    """Return the rule of what broadcasts its inputs, those of some numbers or all, to each other."""

    def rule(found: Shapes, node: gs.Node) -> list[Shape | None]:
        read = [node.inputs[number] for number in numbers] or [tensor for tensor in node.inputs if tensor.name]
        shapes = [shape for shape in map(found.shape, read) if shape is not None]
        return [broadcast(*shapes) if len(shapes) == len(read) else None]

    return rule


all_joined = joined()


def multiplied(a: int = 0, b: int = 1) -> ShapeRule:
    """Return the rule of products of matrices, of the inputs of these numbers."""

    @of(a, b)
    def rule(_found: Shapes, node: gs.Node, left: Shape, right: Shape) -> Shape | None:
        if node.attrs.get("transBatchA") or node.attrs.get("transBatchB"):
            return None
        row = left[-1:] if node.attrs.get("transA") else left[-2:-1]
        column = right[-2:-1] if node.attrs.get("transB") else right[-1:] if len(right) > 1 else ()
        return (*broadcast(left[:-2], right[:-2]), *row, *column)

    return rule


matmul = multiplied()


def listed(found: Shapes, tensor: gs.Tensor) -> Shape | None:
    """Return the sizes that a tensor lists, unknown ones where only their number is known."""
    values, length = found.values(tensor), found.shape(tensor)
    if values is not None:
        return tuple(size if isinstance(size, Size) else found.fresh() for size in values.reshape(-1))
    count = length[0].static if length else None
    return None if count is None else unknown(found, count)


def unknown(found: Shapes, count: int) -> Shape:
    """Return sizes of which nothing is known."""
    return tuple(found.fresh() for _ in range(count))


def with_axis(shape: Shape, axis: int, size: Size) -> Shape:
    """Return a shape with another size of an axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def without(shape: Shape, axes: list[int], keeps: int) -> Shape:
    """Return a shape without some axes; where it `keeps` them, they are 1."""
    gone = {axis % len(shape) for axis in axes}
    return tuple(ONE if axis in gone else size for axis, size in enumerate(shape) if keeps or axis not in gone)
