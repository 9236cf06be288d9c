"""The shapes of what operators make that compute nothing: the values of their inputs, somewhere else."""

from __future__ import annotations

import operator
from functools import reduce

import onnx_graphsurgeon as gs

from ..shapes import END, ONE, ZERO, Shape, Shapes, Size, broadcast, parameter, product, slices
from .record import ShapeRule
from .rules import listed, of, unknown, with_axis, without


@of()
def reshaped(found: Shapes, node: gs.Node) -> Shape | None:
    """Return the shape of Reshape."""
    asked, x = found.values(node.inputs[1]), found.shape(node.inputs[0])
    if asked is None:
        return listed(found, node.inputs[1])
    sizes: list[Size | None] = []
    for axis, element in enumerate(asked.reshape(-1)):
        copied = element == ZERO and not node.attrs.get("allowzero", 0)
        size = (x[axis] if x is not None else found.fresh()) if copied else element
        sizes.append(size if isinstance(size, Size) and (size.is_positive or size == ZERO) else None)
    if sizes.count(None) == 1 and x is not None:
        rest = product(x).over(product(size for size in sizes if size is not None))
        sizes[sizes.index(None)] = rest
    return tuple(size or found.fresh() for size in sizes)


@of()
def listed_first(found: Shapes, node: gs.Node) -> Shape | None:
    """Return the shape that the first input lists."""
    return listed(found, node.inputs[0])


@of(0)
def flattened(_found: Shapes, node: gs.Node, x: Shape) -> Shape:
    """Return the shape of Flatten."""
    axis = int(node.attrs.get("axis", 1))
    axis += len(x) if axis < 0 else 0
    return product(x[:axis]), product(x[axis:])


@of(0)
def transposed(_found: Shapes, node: gs.Node, x: Shape) -> Shape:
    """Return the shape of Transpose."""
    return tuple(x[axis] for axis in node.attrs.get("perm") or reversed(range(len(x))))


@of()
def concatenated(found: Shapes, node: gs.Node) -> Shape | None:
    """Return the shape of Concat."""
    shapes = [shape for shape in map(found.shape, node.inputs) if shape is not None]
    if not shapes:
        return None
    axis = int(node.attrs["axis"]) % len(shapes[0])
    known = len(shapes) == len(node.inputs)
    return with_axis(shapes[0], axis, reduce(operator.add, [s[axis] for s in shapes]) if known else found.fresh())


def split(found: Shapes, node: gs.Node) -> list[Shape | None]:
    """Return the shapes of the outputs of Split; none where nothing is known."""
    shape = found.shape(node.inputs[0])
    if shape is None:
        return []
    axis, count = int(node.attrs.get("axis", 0)) % len(shape), len(node.outputs)
    sizes = parameter(found, node, 1, "split")
    equal = shape[axis].over(Size.known(count)) if len(node.inputs) < 2 else None
    parts = [Size.known(size) for size in sizes] if sizes else [equal or found.fresh() for _ in range(count)]
    return [with_axis(shape, axis, part) for part in parts]


@of(0)
def sliced(found: Shapes, node: gs.Node, x: Shape) -> Shape:
    """Return the shape of Slice."""
    try:
        cuts = slices(found, node, len(x))
    except ValueError:  # of axes that are not known
        return unknown(found, len(x))
    for axis, bounds in cuts.items():
        x = with_axis(x, axis, _sliced(x[axis], *bounds) or found.fresh())
    return x


def _sliced(size: Size, start: Size | None, end: Size | None, step: Size | None) -> Size | None:
    """Return how much is left of an axis.

    A bound that has a name is taken to be inside: models cut tables and masks to the length of what they are added to.
    A number may be beyond the end of an axis of no known length; one element is taken to be there.
    """
    if start is None or end is None or step is None:
        return None
    numbers = [bound.static for bound in (size, start, end, step)]
    if None not in numbers:
        return Size.known(len(range(numbers[0] or 0)[slice(*numbers[1:])]))
    if step != ONE or size == ONE:
        return size if size == ONE else None
    whole = end.static is not None and end.static >= END
    first, last = _from_front(size, start), size if whole else _from_front(size, end)
    left = last - first if first is not None and last is not None else ZERO
    sure = size.static is not None or left.static in (None, 1)
    return left if left.is_positive and sure else None


def _from_front(size: Size, bound: Size) -> Size | None:
    """Return a bound counted from the front, or None where it is not known from which end it counts."""
    if bound == ZERO or bound.is_positive:
        return bound
    return size + bound if (ZERO - bound).is_positive else None


@of(0, 1)
def gathered(_found: Shapes, node: gs.Node, data: Shape, indices: Shape) -> Shape:
    """Return the shape of Gather."""
    axis = int(node.attrs.get("axis", node.attrs.get("gather_axis", 0))) % len(data)
    return (*data[:axis], *indices, *data[axis + 1 :])


def gathered_blocks(found: Shapes, node: gs.Node) -> list[Shape | None]:
    """Return the shape of GatherBlockQuantized, whose codes lie several to a byte where their type is uint8."""
    (shape,) = gathered(found, node)
    packed = 8 // int(node.attrs.get("bits", 4)) if node.inputs[0].dtype == "uint8" else 1
    return [None if shape is None else (*shape[:-1], shape[-1] * Size.known(packed))]


def listed_in(name: str) -> ShapeRule:
    """Return the rule of what has the shape that an attribute lists."""
    return of()(lambda found, node: tuple(Size.known(n) if n >= 0 else found.fresh() for n in node.attrs[name]))


@of()
def row(found: Shapes, _node: gs.Node) -> Shape:
    """Return the shape of a vector of unknown length."""
    return (found.fresh(),)


@of(-1)
def looked_up(found: Shapes, _node: gs.Node, indices: Shape) -> Shape:
    """Return the shape of rows of a table: the last input says which."""
    return (*indices, found.fresh())


@of(0, 1)
def gathered_parts(_found: Shapes, node: gs.Node, data: Shape, indices: Shape) -> Shape | None:
    """Return the shape of GatherND."""
    picked = indices[-1].static
    return None if picked is None else (*indices[:-1], *data[int(node.attrs.get("batch_dims", 0)) + picked :])


@of(0)
def unsqueezed(found: Shapes, node: gs.Node, x: Shape) -> Shape | None:
    """Return the shape of Unsqueeze."""
    axes, rest = parameter(found, node, 1, "axes"), iter(x)
    if axes is None:
        return None
    rank = len(x) + len(axes)
    new = {axis % rank for axis in axes}
    return tuple(ONE if axis in new else next(rest) for axis in range(rank))


@of(0)
def squeezed(found: Shapes, node: gs.Node, x: Shape) -> Shape | None:
    """Return the shape of Squeeze."""
    axes = parameter(found, node, 1, "axes")
    return None if axes is None else without(x, axes, keeps=0)


@of(0)
def expanded(found: Shapes, node: gs.Node, x: Shape) -> Shape | None:
    """Return the shape of Expand."""
    asked = listed(found, node.inputs[1])
    return None if asked is None else broadcast(x, asked)


@of(0)
def tiled(found: Shapes, node: gs.Node, x: Shape) -> Shape:
    """Return the shape of Tile."""
    repeats = listed(found, node.inputs[1]) or unknown(found, len(x))
    return tuple(size * by for size, by in zip(x, repeats, strict=True))


@of(0)
def padded(found: Shapes, node: gs.Node, x: Shape) -> Shape:
    """Return the shape of Pad."""
    pads = parameter(found, node, 1, "pads")
    if pads is None or len(pads) != 2 * len(x):
        return unknown(found, len(x))
    return tuple(size + Size.known(sum(pads[axis :: len(x)])) for axis, size in enumerate(x))


@of(0)
def same_rank(found: Shapes, _node: gs.Node, x: Shape) -> Shape:
    """Return unknown sizes, as many as the first input has axes."""
    return unknown(found, len(x))
