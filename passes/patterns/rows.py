"""Where one row of a tensor is all that is read, and the nodes behind that compute every row by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from ..graph.operators import Trait, operator_of, traits_of
from ..graph.operators.rules import matmul
from ..graph.shapes import END, ONE, ZERO, Shape, Shapes, Size, slices
from ..graph.walk import is_standard
from .region import IsOutput, readers

# Numbers of the inputs whose rows make the rows of the output, one by one; the others are read whole. None at all where
# that is not so, or not known. The shape of the output is known: whoever reads its rows has asked for it.
Inputs = frozenset[int]
NONE: Inputs = frozenset()
# The axis of rows of a matrix, of queries and of masks, counted from the end.
ROWS = -2
MATRIX = 2
# Inputs of Attention.
QUERY, MASK = 0, 3
# Rows that are still called so where they are the only one.
FIRST, LAST = 0, -1


@dataclass(frozen=True)
class OneRow:
    """A node that reads one row, and what computes that row without the others.

    Attributes:
        node: reads the row.
        index: which row: FIRST or LAST.
        axis: the axis of rows of all tensors, counted from the end.
        inputs: by id of the node, the inputs that are read row by row.
        nodes: `node`, and the nodes behind it of which nothing but that row is read.
    """

    node: gs.Node
    index: int
    axis: int
    inputs: dict[int, Inputs]
    nodes: tuple[gs.Node, ...]

    def reads(self) -> Iterator[tuple[gs.Node, int]]:
        """Yield (node, number of the input) of all that is read row by row."""
        for node in self.nodes:
            for number in sorted(self.inputs[id(node)]):
                yield node, number


def match_one_row(node: gs.Node, shapes: Shapes, is_output: IsOutput) -> OneRow | None:
    """Return what computes the one row that a node reads, if a product is among that."""
    taken = _taken(node, shapes)
    if taken is None:
        return None
    index, axis = taken
    inputs, nodes, new = {id(node): frozenset({0})}, [node], [node]
    while new:
        reader = new.pop()
        for number in inputs[id(reader)]:
            tensor = reader.inputs[number]
            maker = tensor.inputs[0] if tensor.inputs else None
            # A tensor with several readers is met with each of them: with the last, all are known.
            if maker is None or id(maker) in inputs or is_output(tensor) or not _is_read_by_rows(tensor, inputs):
                continue
            read = _read_by_rows(maker, axis, shapes) if len(maker.outputs) == 1 else NONE
            if read:
                inputs[id(maker)] = read
                nodes.append(maker)
                new.append(maker)
    found = OneRow(node, index, axis, inputs, tuple(nodes))
    # Without a product nothing is saved.
    return found if any(Trait.MULTIPLIES in traits_of(each) for each in nodes) else None


def _taken(node: gs.Node, shapes: Shapes) -> tuple[int, int] | None:
    """Return the row that a Gather or Slice takes, FIRST or LAST, and its axis, where there is more than one."""
    shape = shapes.shape(node.inputs[0]) if node.op in ("Gather", "Slice") and is_standard(node) else None
    if not shape:
        return None
    index, axis = None, 0
    if node.op == "Gather":
        axis, index = int(node.attrs.get("axis", 0)) % len(shape), shapes.scalar(node.inputs[1])
    else:
        # Bounds that are not known, or of several axes.
        with suppress(KeyError, ValueError):
            ((axis, bounds),) = slices(shapes, node, len(shape)).items()
            index = _single(*bounds)
    axis -= len(shape)
    return (int(index), axis) if index in (FIRST, LAST) and axis <= ROWS and shape[axis] != ONE else None


def _single(start: Size | None, end: Size | None, step: Size | None) -> int | None:
    """Return the only row of a slice, or None."""
    if step != ONE:
        return None
    if (start, end) == (ZERO, ONE):
        return FIRST
    bounds = [None if bound is None else bound.static for bound in (start, end)]
    return LAST if bounds[0] == LAST and (bounds[1] or 0) >= END else None


def _is_read_by_rows(tensor: gs.Tensor, inputs: dict[int, Inputs]) -> bool:
    """Tell whether all that reads a tensor is among nodes that need but a row of it."""
    uses = ((node, number) for node in readers(tensor) for number, read in enumerate(node.inputs) if read is tensor)
    return all(number in inputs.get(id(node), NONE) for node, number in uses)


def _read_by_rows(node: gs.Node, axis: int, shapes: Shapes) -> Inputs:
    """Return the inputs of which a row of the output needs but that row."""
    operator = operator_of(node)
    if operator.name == "Attention":
        return _attention(node, axis, shapes)
    if operator.shapes is matmul:
        return _matmul(node, axis, shapes)
    if Trait.REDUCES in operator.traits:
        return _reduction(node, axis, shapes)
    if Trait.NORMALIZES | Trait.KEEPS_ROWS in operator.traits:
        return _normalization(node, axis, shapes)
    return _elementwise(node, axis, shapes) if Trait.ELEMENTWISE in operator.traits else NONE


def _elementwise(node: gs.Node, axis: int, shapes: Shapes) -> Inputs:
    return _aligned(node, range(len(node.inputs)), axis, shapes)


def _aligned(node: gs.Node, numbers: Iterable[int], axis: int, shapes: Shapes) -> Inputs:
    """Return those of some inputs that have as many rows as the output, if these are one by one made of them.

    The others of these inputs have one row; those that are not asked for are read whole.
    """
    read = [number for number in numbers if node.inputs[number].name]
    whole = _size(shapes.shape(node.outputs[0]), axis)
    rows = {number: _size(shapes.shape(node.inputs[number]), axis) for number in read}
    if not {whole, ONE}.issuperset(rows.values()):
        return NONE
    return frozenset(number for number, row in rows.items() if row == whole)


def _size(shape: Shape | None, axis: int) -> Size | None:
    """Return the size of an axis, counted from the end: 1 where a shape has none so far."""
    if shape is None:
        return None
    return shape[axis] if len(shape) >= -axis else ONE


def _normalization(node: gs.Node, axis: int, shapes: Shapes) -> Inputs:
    shape, first = shapes.shape(node.outputs[0]) or (), int(node.attrs.get("axis", -1))
    if (first if first < 0 else first - len(shape)) <= axis:
        return NONE
    return _elementwise(node, axis, shapes)


def _reduction(node: gs.Node, axis: int, shapes: Shapes) -> Inputs:
    # Reduced rows would be one.
    return _aligned(node, range(1), axis, shapes) if node.attrs.get("keepdims", 1) else NONE


def _matmul(node: gs.Node, axis: int, shapes: Shapes) -> Inputs:
    weight = shapes.shape(node.inputs[1])
    if weight is None or len(weight) < MATRIX or (len(weight) > MATRIX and axis < ROWS):
        return NONE
    return _aligned(node, range(1), axis, shapes)


def _attention(node: gs.Node, axis: int, shapes: Shapes) -> Inputs:
    read = [QUERY, *range(MASK, len(node.inputs))[:1]]
    rows = {
        _size(shapes.shape(tensor), ROWS) for tensor in (node.outputs[0], *(node.inputs[number] for number in read))
    }
    if axis != ROWS or node.attrs.get("is_causal") or len(rows) > 1:
        return NONE
    return frozenset(read)
