"""The shape of what each operator makes, from the shapes of what it reads."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import onnx_graphsurgeon as gs

from ..editor import is_standard
from .known import END, Shapes, parameter, slices
from .sizes import ONE, ZERO, Shape, Size, broadcast, product

# Operators whose output has the shape of the first input.
_UNARY = frozenset(
    {
        "Abs", "Cast", "Clip", "CumSum", "Dropout", "Elu", "Erf", "Exp", "FastGelu", "Gelu", "HardSigmoid", "Identity",
        "IsNaN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Neg", "Not", "QuickGelu", "RMSNormalization",
        "Reciprocal", "Relu", "Sigmoid", "SimplifiedLayerNormalization", "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization", "Softmax", "Softplus", "Sqrt", "Tanh", "Trilu",
    }
)  # fmt: skip
# Operators whose inputs are broadcast to each other.
_BROADCAST = frozenset(
    {
        "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mul",
        "Or", "Pow", "Sub", "Sum", "Where", "Xor",
    }
)  # fmt: skip


def shape_of(found: Shapes, node: gs.Node) -> Shape | None:
    """Return the shape of a node's first output, or None."""
    if node.op in _RULES:
        return _RULES[node.op](found, node)
    if node.op not in _BROADCAST and node.op not in _UNARY:
        return None
    read = node.inputs if node.op in _BROADCAST else node.inputs[:1]
    shapes = [shape for shape in map(found.shape, read) if shape is not None]
    return broadcast(*shapes) if len(shapes) == len(read) else None


def _reshape(found: Shapes, node: gs.Node) -> Shape | None:
    asked, x = found.values(node.inputs[1]), found.shape(node.inputs[0])
    if asked is None:
        length = found.shape(node.inputs[1])
        count = length[0].static if length else None
        return None if count is None else tuple(found.fresh() for _ in range(count))
    sizes: list[Size | None] = []
    for axis, element in enumerate(asked.reshape(-1)):
        copied = element == ZERO and not node.attrs.get("allowzero", 0)
        size = (x[axis] if x is not None else found.fresh()) if copied else element
        sizes.append(size if isinstance(size, Size) and (size.is_positive or size == ZERO) else None)
    if sizes.count(None) == 1 and x is not None:
        rest = product(x).over(product(size for size in sizes if size is not None))
        sizes[sizes.index(None)] = rest
    return tuple(size or found.fresh() for size in sizes)


def _transpose(found: Shapes, node: gs.Node) -> Shape | None:
    shape = found.shape(node.inputs[0])
    return None if shape is None else tuple(shape[a] for a in node.attrs.get("perm") or reversed(range(len(shape))))


def _matmul(found: Shapes, node: gs.Node) -> Shape | None:
    a, b = found.shape(node.inputs[0]), found.shape(node.inputs[1])
    if a is None or b is None or min(len(a), len(b)) < 2:
        return None
    return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def _gemm(found: Shapes, node: gs.Node) -> Shape | None:
    a, b = found.shape(node.inputs[0]), found.shape(node.inputs[1])
    if a is None or b is None:
        return None
    return a[1 if node.attrs.get("transA") else 0], b[0 if node.attrs.get("transB") else 1]


def _attention(found: Shapes, node: gs.Node) -> Shape | None:
    # The runtime's own operator of this name multiplies with weights first.
    query, value = (found.shape(node.inputs[i]) if is_standard(node) else None for i in (0, 2))
    if query is None or value is None:
        return None
    width = value[-1]
    if "kv_num_heads" in node.attrs:  # heads side by side
        width = (width.over(Size.known(node.attrs["kv_num_heads"])) or found.fresh()) * Size.known(
            node.attrs["q_num_heads"]
        )
    return (*query[:-1], width)


def _concat(found: Shapes, node: gs.Node) -> Shape | None:
    shapes = [shape for shape in map(found.shape, node.inputs) if shape is not None]
    if not shapes:
        return None
    axis = int(node.attrs["axis"]) % len(shapes[0])
    known = len(shapes) == len(node.inputs)
    return _with_axis(shapes[0], axis, reduce(operator.add, [s[axis] for s in shapes]) if known else found.fresh())


def split_shapes(found: Shapes, node: gs.Node) -> list[Shape]:
    """Return the shapes of the outputs of Split; none where nothing is known."""
    shape = found.shape(node.inputs[0])
    if shape is None:
        return []
    axis, count = int(node.attrs.get("axis", 0)) % len(shape), len(node.outputs)
    sizes = parameter(found, node, 1, "split")
    equal = shape[axis].over(Size.known(count)) if len(node.inputs) < 2 else None
    parts = [Size.known(size) for size in sizes] if sizes else [equal or found.fresh() for _ in range(count)]
    return [_with_axis(shape, axis, part) for part in parts]


def _slice(found: Shapes, node: gs.Node) -> Shape | None:
    shape = found.shape(node.inputs[0])
    if shape is None:
        return None
    for axis, bounds in slices(found, node, len(shape)).items():
        shape = _with_axis(shape, axis, _sliced(shape[axis], *bounds) or found.fresh())
    return shape


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


def _gather(found: Shapes, node: gs.Node) -> Shape | None:
    data, indices = found.shape(node.inputs[0]), found.shape(node.inputs[1])
    if data is None or indices is None:
        return None
    axis = int(node.attrs.get("axis", 0)) % len(data)
    return (*data[:axis], *indices, *data[axis + 1 :])


def _unsqueeze(found: Shapes, node: gs.Node) -> Shape | None:
    shape, axes = found.shape(node.inputs[0]), parameter(found, node, 1, "axes")
    if shape is None or axes is None:
        return None
    rank, rest = len(shape) + len(axes), iter(shape)
    new = {axis % rank for axis in axes}
    return tuple(ONE if axis in new else next(rest) for axis in range(rank))


def _squeeze(found: Shapes, node: gs.Node) -> Shape | None:
    shape, axes = found.shape(node.inputs[0]), parameter(found, node, 1, "axes")
    if shape is None or axes is None:
        return None
    gone = {axis % len(shape) for axis in axes}
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)


def _expand(found: Shapes, node: gs.Node) -> Shape | None:
    shape, asked = found.shape(node.inputs[0]), found.values(node.inputs[1])
    if shape is None or asked is None:
        return None
    return broadcast(shape, tuple(size if isinstance(size, Size) else found.fresh() for size in asked.reshape(-1)))


def _conv(found: Shapes, node: gs.Node) -> Shape | None:
    x, weight = found.shape(node.inputs[0]), found.shape(node.inputs[1])
    return None if x is None or weight is None else (x[0], weight[0], *(found.fresh() for _ in x[2:]))


def _tile(found: Shapes, node: gs.Node) -> Shape | None:
    shape, repeats = found.shape(node.inputs[0]), found.values(node.inputs[1])
    if shape is None or repeats is None:
        return None
    pairs = zip(shape, repeats.reshape(-1), strict=True)
    return tuple(size * by if isinstance(by, Size) else found.fresh() for size, by in pairs)


def _pool(found: Shapes, node: gs.Node) -> Shape | None:
    x = found.shape(node.inputs[0])
    return None if x is None else (*x[:2], *(found.fresh() for _ in x[2:]))


def _range(found: Shapes, node: gs.Node) -> Shape | None:
    start, limit, step = (None if v is None else v.reshape(-1)[0] for v in map(found.values, node.inputs))
    if isinstance(start, Size) and isinstance(limit, Size) and step == ONE and (limit - start).is_positive:
        return (limit - start,)
    return (found.fresh(),)


def _reduce(found: Shapes, node: gs.Node) -> Shape | None:
    shape, axes = found.shape(node.inputs[0]), parameter(found, node, 1, "axes")
    if shape is None or not axes:  # no axes are all, or none
        return None
    gone = {axis % len(shape) for axis in axes}
    if node.attrs.get("keepdims", 1):
        return tuple(ONE if axis in gone else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)


def _with_axis(shape: Shape, axis: int, size: Any) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


_RULES: dict[str, Callable[[Shapes, gs.Node], Shape | None]] = {
    "Attention": _attention,
    "AveragePool": _pool,
    "Concat": _concat,
    "Conv": _conv,
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Range": _range,
    **dict.fromkeys(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    "Reshape": _reshape,
    "Shape": lambda found, _: (found.fresh(),),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
