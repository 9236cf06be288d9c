"""Shapes of all tensors and values of the small ones, followed through the operators once."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from .constants import small_values
from .editor import walk
from .sizes import (
    ARITHMETIC,
    ONE,
    ZERO,
    Shape,
    Size,
    Values,
    as_float,
    as_whole,
    broadcast,
    each,
    number,
    product,
    values_of,
)

# Elements of a tensor that is worth following.
MOST_VALUES = 64
# What models write where a size has no name.
_NO_NAMES = frozenset({"", "?", "N", "None", "unk", "unknown"})
# Bounds of a slice from here on mean the end of any axis.
_END = 2**31 - 1
_UNARY = frozenset(
    ["Abs", "Cast", "Clip", "CumSum", "Dropout", "Elu", "Erf", "Exp", "FastGelu", "Gelu", "HardSigmoid", "Identity", "IsNaN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Neg", "Not", "Pow", "QuickGelu", "Reciprocal", "Relu", "RMSNormalization", "Sigmoid", "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Softmax", "Softplus", "Sqrt", "Tanh", "Trilu"]
)
_BROADCAST = frozenset(
    ["Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor"]
)


@dataclass
class Shapes:
    """What is known of the tensors of one graph, by tensor; tensors made later are not in it."""

    _shapes: dict[int, tuple[gs.Tensor, Shape]] = field(default_factory=dict)
    _values: dict[int, tuple[gs.Tensor, Values]] = field(default_factory=dict)
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Return the sizes of a tensor's axes, or None where not even their number is known."""
        if isinstance(tensor, gs.Constant):
            return tuple(map(Size.known, tensor.shape))
        return self._shapes[id(tensor)][1] if id(tensor) in self._shapes else None

    def values(self, tensor: gs.Tensor) -> Values | None:
        """Return the elements of a small tensor, or None where nothing is known of them."""
        if id(tensor) in self._values:
            return self._values[id(tensor)][1]
        array = small_values(tensor) if isinstance(tensor, gs.Constant) else None
        return values_of(array) if array is not None and array.dtype.kind in "biuf" else None

    def scalar(self, tensor: gs.Tensor) -> float | None:
        """Return the number that a tensor of one element holds, or None."""
        values = self.values(tensor)
        return number(values.reshape(-1)[0]) if values is not None and values.size == 1 else None

    def ints(self, tensor: gs.Tensor | None) -> list[int] | None:
        """Return the whole numbers that a tensor holds, or None where one is not known."""
        values = self.values(tensor) if tensor is not None else None
        known = [number(element) for element in values.reshape(-1)] if values is not None else [None]
        return None if None in known else [int(element) for element in known if element is not None]

    def fresh(self) -> Size:
        """Return a size of which nothing is known."""
        return Size.named(f"?{next(self._count)}")

    def declare(self, tensor: gs.Tensor) -> None:
        """Take over what the model says of a tensor: sizes of the same name are the same."""
        if tensor.shape is not None and id(tensor) not in self._shapes and not isinstance(tensor, gs.Constant):
            self._shapes[id(tensor)] = (tensor, tuple(map(self._declared, tensor.shape)))

    def _declared(self, dim: Any) -> Size:
        if isinstance(dim, str) and dim not in _NO_NAMES:
            # A sum of names is how exporters call the length of past and new tokens.
            return reduce(operator.add, map(Size.named, dim.split(" + ")))
        return Size.known(dim) if isinstance(dim, int) and dim >= 0 else self.fresh()

    def follow(self, node: gs.Node) -> None:
        """Note what a node makes of what is known of its inputs."""
        if node.outputs and node.domain in (None, "", "ai.onnx", "com.microsoft"):
            try:
                self._follow(node)
            except (IndexError, KeyError, TypeError, ValueError):
                pass  # parameters that do not fit: the runtime's to judge
        for output in node.outputs:
            self.declare(output)

    def _follow(self, node: gs.Node) -> None:
        if node.op == "Split":
            for output, shape in zip(node.outputs, _split(self, node), strict=True):
                self._shapes[id(output)] = (output, shape)
            return
        output, shape, values = node.outputs[0], _shape_of(self, node), _values_of(self, node)
        if values is not None and np.size(values) <= MOST_VALUES:
            values = np.asarray(values, object)
            self._values[id(output)] = (output, values)
            shape = tuple(map(Size.known, values.shape))
        if shape is not None:
            self._shapes[id(output)] = (output, shape)


def find_shapes(graph: gs.Graph) -> Shapes:
    """Return what is known of the tensors of a graph and its bodies."""
    found = Shapes()
    for scope in (graph, *graph.subgraphs(recursive=True)):
        for tensor in scope.inputs:
            found.declare(tensor)
    for _, node in walk(graph):
        found.follow(node)
    return found


def _shape_of(found: Shapes, node: gs.Node) -> Shape | None:
    if node.op in _RULES:
        return _RULES[node.op](found, node)
    if node.op not in _BROADCAST and node.op not in _UNARY:
        return None
    shapes = [found.shape(tensor) for tensor in (node.inputs if node.op in _BROADCAST else node.inputs[:1])]
    return None if None in shapes else broadcast(*[shape for shape in shapes if shape is not None])


def _values_of(found: Shapes, node: gs.Node) -> Values | None:
    if node.op in ("Shape", "Size"):
        return _shape_values(found, node)
    if node.op == "ConstantOfShape":
        dims, value = found.ints(node.inputs[0]), node.attrs.get("value")
        small = dims is not None and np.prod(dims) <= MOST_VALUES
        fill = values_of(np.zeros(1, np.float32) if value is None else np.asarray(value.values))
        return np.broadcast_to(fill.reshape(()), dims) if small else None
    inputs = [found.values(tensor) for tensor in node.inputs if tensor.name]
    if node.op in ARITHMETIC and None not in [values is not None or None for values in inputs]:
        return each(ARITHMETIC[node.op], *inputs)
    if node.op in _MOVES and inputs and inputs[0] is not None:
        return _MOVES[node.op](found, node, inputs[0])
    if node.op == "Concat" and any(values is not None for values in inputs):
        parts = [_unknown(found, t) if v is None else v for t, v in zip(node.inputs, inputs, strict=True)]
        return None if any(part is None for part in parts) else np.concatenate(parts)
    return None


def _unknown(found: Shapes, tensor: gs.Tensor) -> Values | None:
    """Return the elements of a vector of which only the length is known."""
    shape = found.shape(tensor)
    return np.full(shape[0].static, None, object) if shape and len(shape) == 1 and shape[0].static else None


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


def _parameter(found: Shapes, node: gs.Node, index: int, name: str) -> list[int] | None:
    """Return a list of whole numbers that is an attribute in early opsets, an input in later ones."""
    if name in node.attrs:
        return [int(element) for element in np.atleast_1d(node.attrs[name])]
    return found.ints(node.inputs[index]) if len(node.inputs) > index and node.inputs[index].name else None


def _slices(found: Shapes, node: gs.Node, rank: int) -> dict[int, list[Size | None]]:
    """Return start, end and step of each axis that is cut; None where they are not known."""
    axes = _parameter(found, node, 3, "axes")
    given = [found.values(tensor) for tensor in node.inputs[1:3]] or [node.attrs["starts"], node.attrs["ends"]]
    steps = _parameter(found, node, 4, "steps")
    count = next(len(bounds) for bounds in (axes, *given, steps) if bounds is not None)
    if axes is None and len(node.inputs) > 3 and node.inputs[3].name:
        raise ValueError("the axes are not known")
    unknown = [None] * count
    starts, ends = [unknown if bounds is None else [_size(bound) for bound in bounds] for bounds in given]
    columns = zip(axes or range(count), starts, ends, steps or [1] * count, strict=True)
    return {axis % rank: [start, end, Size.known(step)] for axis, start, end, step in columns}


def _size(element: Any) -> Size | None:
    return Size.known(element) if isinstance(element, int) else element


def _slice_values(found: Shapes, node: gs.Node, values: Values) -> Values | None:
    cuts = {
        axis: [None if bound is None else bound.static for bound in bounds]
        for axis, bounds in _slices(found, node, values.ndim).items()
    }
    if any(None in bounds for bounds in cuts.values()):
        return None
    return values[tuple(slice(*cuts[axis]) if axis in cuts else slice(None) for axis in range(values.ndim))]


def _gather_values(found: Shapes, node: gs.Node, values: Values) -> Values | None:
    indices = small_values(node.inputs[1])
    return None if indices is None else np.take(values, indices.astype(int), int(node.attrs.get("axis", 0)))


def _squeeze_values(found: Shapes, node: gs.Node, values: Values) -> Values:
    axes = _parameter(found, node, 1, "axes")
    return np.squeeze(values, None if axes is None else tuple(axes))


# Operators that move elements: functions of the first input's values.
_MOVES: dict[str, Callable[[Shapes, gs.Node, Values], Values | None]] = {
    "Cast": _cast,
    "Gather": _gather_values,
    "Identity": lambda found, node, values: values,
    "Reshape": lambda found, node, values: values.reshape(found.ints(node.inputs[1]) or ()),
    "Slice": _slice_values,
    "Squeeze": _squeeze_values,
    "Unsqueeze": lambda found, node, values: np.expand_dims(values, tuple(_parameter(found, node, 1, "axes") or ())),
}


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


def _concat(found: Shapes, node: gs.Node) -> Shape | None:
    shapes = [shape for shape in map(found.shape, node.inputs) if shape is not None]
    if not shapes:
        return None
    axis = int(node.attrs["axis"]) % len(shapes[0])
    known = len(shapes) == len(node.inputs)
    return _with_axis(shapes[0], axis, reduce(operator.add, [s[axis] for s in shapes]) if known else found.fresh())


def _split(found: Shapes, node: gs.Node) -> Sequence[Shape]:
    shape = found.shape(node.inputs[0])
    if shape is None:
        return []
    axis, count = int(node.attrs.get("axis", 0)) % len(shape), len(node.outputs)
    sizes = _parameter(found, node, 1, "split")
    equal = shape[axis].over(Size.known(count)) if len(node.inputs) < 2 else None
    parts = [Size.known(size) for size in sizes] if sizes else [equal or found.fresh() for _ in range(count)]
    return [_with_axis(shape, axis, part) for part in parts]


def _slice(found: Shapes, node: gs.Node) -> Shape | None:
    shape = found.shape(node.inputs[0])
    if shape is None:
        return None
    for axis, bounds in _slices(found, node, len(shape)).items():
        shape = _with_axis(shape, axis, _sliced(shape[axis], *bounds) or found.fresh())
    return shape


def _sliced(size: Size, start: Size | None, end: Size | None, step: Size | None) -> Size | None:
    """Return how much is left of an axis.

    A bound that is a size is taken to be inside: models cut tables and masks to the length of what they are added to.
    """
    if start is None or end is None or step is None:
        return None
    numbers = [bound.static for bound in (size, start, end, step)]
    if None not in numbers:
        return Size.known(len(range(numbers[0] or 0)[slice(*numbers[1:])]))
    if step != ONE or size == ONE:
        return size if size == ONE else None
    start = start if _is_inside(start) else size + start
    whole = end.static is not None and end.static >= _END
    end = size if whole else (end if _is_inside(end) else size + end)
    return end - start if (end - start).is_positive else None


def _is_inside(bound: Size) -> bool:
    """Tell whether a bound counts from the front."""
    return bound.static is None or bound.static >= 0


def _gather(found: Shapes, node: gs.Node) -> Shape | None:
    data, indices = found.shape(node.inputs[0]), found.shape(node.inputs[1])
    if data is None or indices is None:
        return None
    axis = int(node.attrs.get("axis", 0)) % len(data)
    return (*data[:axis], *indices, *data[axis + 1 :])


def _unsqueeze(found: Shapes, node: gs.Node) -> Shape | None:
    shape, axes = found.shape(node.inputs[0]), _parameter(found, node, 1, "axes")
    if shape is None or axes is None:
        return None
    rank, rest = len(shape) + len(axes), iter(shape)
    new = {axis % rank for axis in axes}
    return tuple(ONE if axis in new else next(rest) for axis in range(rank))


def _squeeze(found: Shapes, node: gs.Node) -> Shape | None:
    shape, axes = found.shape(node.inputs[0]), _parameter(found, node, 1, "axes")
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
    known = isinstance(start, Size) and isinstance(limit, Size) and step == ONE and (limit - start).is_positive
    return (limit - start,) if known else (found.fresh(),)


def _reduce(found: Shapes, node: gs.Node) -> Shape | None:
    shape, axes = found.shape(node.inputs[0]), _parameter(found, node, 1, "axes")
    if shape is None or axes is None:
        return None
    gone = {axis % len(shape) for axis in axes}
    if node.attrs.get("keepdims", 1):
        return tuple(ONE if axis in gone else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)


def _with_axis(shape: Shape, axis: int, size: Any) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


_RULES: dict[str, Callable[[Shapes, gs.Node], Shape | None]] = {
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
    "Shape": lambda found, node: (found.fresh(),),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
