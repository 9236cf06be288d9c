"""What is known of tensors without running a graph: the sizes of their axes, and the elements of small ones."""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ..constants import small_values
from .sizes import ONE, Shape, Size, Values, number, values_of

# An input of Slice; bounds from END on mean the end of any axis.
STEPS, END = 4, 2**31 - 1
# Elements of a tensor that is worth following.
MOST_VALUES = 64
# What models write where a size has no name.
_NO_NAMES = frozenset({"", "?", "N", "None", "unk", "unknown"})


@dataclass
class Shapes:
    """What is known of the tensors of one graph."""

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

    def note(self, tensor: gs.Tensor, shape: Shape | None, values: Values | None = None) -> None:
        """Take down what is known of a tensor, on itself too; values of too many elements are left out."""
        if values is not None and np.size(values) <= MOST_VALUES:
            values = np.asarray(values, object)
            self._values[id(tensor)] = (tensor, values)
            shape = tuple(map(Size.known, values.shape))
        if shape is not None:
            self._shapes[id(tensor)] = (tensor, shape)
            if tensor.shape is None:
                tensor.shape = [*map(_dim, shape)]

    def declare(self, tensor: gs.Tensor, names: bool) -> None:
        """Take over what the model says of a tensor of which nothing is known; with `names`, equal ones are equal."""
        if tensor.shape is not None and self.shape(tensor) is None:
            self.note(tensor, tuple(self._declared(dim, names) for dim in tensor.shape))

    def _declared(self, dim: Any, names: bool) -> Size:
        if names and isinstance(dim, str) and dim not in _NO_NAMES:
            # A sum of names is how exporters call the length of past and new tokens.
            return reduce(operator.add, map(Size.named, dim.split(" + ")))
        return Size.known(dim) if isinstance(dim, int) and dim >= 0 else self.fresh()


def parameter(found: Shapes, node: gs.Node, index: int, name: str) -> list[int] | None:
    """Return whole numbers that are an attribute in early opsets and an input in later ones, or None."""
    if name in node.attrs:
        return [int(element) for element in np.atleast_1d(node.attrs[name])]
    return found.ints(node.inputs[index]) if len(node.inputs) > index and node.inputs[index].name else None


def slices(found: Shapes, node: gs.Node, rank: int) -> dict[int, list[Size | None]]:
    """Return start, end and step of each axis that is cut, None where they are not known; ValueError for the axes."""
    axes = parameter(found, node, 3, "axes")
    given = [found.values(tensor) for tensor in node.inputs[1:3]] or [node.attrs["starts"], node.attrs["ends"]]
    steps = parameter(found, node, STEPS, "steps")
    count = next((len(bounds) for bounds in (axes, *given, steps) if bounds is not None), None)
    if count is None:
        raise ValueError("nothing is known of the axes")
    if axes is None and len(node.inputs) > 3 and node.inputs[3].name:
        raise ValueError("the axes are not known")
    unknown = [None] * count
    starts, ends = [unknown if bounds is None else [_size(bound) for bound in bounds] for bounds in given]
    default = None if len(node.inputs) > STEPS and node.inputs[STEPS].name else ONE
    strides = [default] * count if steps is None else list(map(Size.known, steps))
    columns = zip(axes or range(count), starts, ends, strides, strict=True)
    return {axis % rank: [start, end, step] for axis, start, end, step in columns}


def rank(tensor: gs.Tensor) -> int | None:
    """Return the number of a tensor's axes, or None where it is not known."""
    return None if tensor.shape is None else len(tensor.shape)


def _dim(size: Size) -> int | str | None:
    """Return a size as a tensor says it: a number, a name of the model's own, or nothing."""
    names = [names for names, factor in size.terms if factor == 1]
    name = names[0][0] if len(size.terms) == len(names) == 1 and len(names[0]) == 1 else "?"
    return size.static if size.static is not None else None if "?" in name or "|" in name else name


def _size(element: Any) -> Size | None:
    return Size.known(element) if isinstance(element, int) else element
