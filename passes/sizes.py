"""Sizes that nodes compute at every call: constants where the model tells them, for fewer small operators.

    Before: x [b, s, k] -- Shape -- Gather, Unsqueeze, Concat -> (b, s, -1, d),  x -- Reshape(that) -> [b, s, h, d]
    After:  x -- Reshape(0, 0, h, d) -> [b, s, h, d]

1. Whole numbers that are the same in every run (half of a head's width, where Slice cuts it) are a constant.
2. A Reshape to sizes of which each is a number or that of the same axis before is one to numbers and zeros. Where a
   size is neither, it stays computed: to leave it to the runtime (-1), none of the others may be 0.
3. The size of an axis of what was only moved (reshaped, repeated, transposed) is asked of what it was before: what
   nobody reads but for its size is not made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .context import Context
from .graph.constants import resolve, small_values
from .graph.operators import operator_of
from .graph.shapes import ZERO, Shapes
from .graph.types import element_type
from .graph.walk import is_standard

# The input of Reshape that has the sizes, and what stands there for the size of the same axis before.
SIZES, SAME = 1, 0
WHOLE = frozenset({"int32", "int64"})
# What an operator moves that moves its first input.
FIRST = slice(1)


@dataclass(frozen=True)
class Computed:
    """A node, and what some of its inputs hold in every run, by their numbers."""

    scope: gs.Graph
    node: gs.Node
    known: Mapping[int, NDArray[np.integer]]


@dataclass(frozen=True)
class Asked:
    """A Gather of the size of one axis, which a tensor that was there before has as `axis`."""

    scope: gs.Graph
    node: gs.Node
    tensor: gs.Tensor
    axis: NDArray[np.integer]


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Computed | Asked | None:
    """Return the inputs of a node that need not be computed, or the size that can be asked of another tensor."""
    shapes = context.shapes
    if all(_numbers(output, shapes) is not None for output in node.outputs):
        return None  # nobody needs it
    read = {index: tensor for index, tensor in enumerate(node.inputs) if tensor.inputs and resolve(tensor) is None}
    known = {index: _numbers(tensor, shapes) for index, tensor in read.items()}
    if SIZES in known and known[SIZES] is None and node.op == "Reshape" and is_standard(node):
        known[SIZES] = _target(node, shapes)
    found = {index: values for index, values in known.items() if values is not None}
    return Computed(scope, node, found) if found else _asked(scope, node, shapes)


def replace(context: Context, matches: list[Computed | Asked]) -> None:
    """Let a node read constants, or the shape of another tensor."""
    (computed,) = matches
    if isinstance(computed, Asked):
        at, tensor = context.editor.before(computed.scope, computed.node), computed.tensor
        shape = at.op("Shape", tensor, name=f"{tensor.name}.shape", dtype=np.int64)
        computed.node.inputs = [shape, at.constant(computed.axis, "axis")]
        return
    at, inputs = context.editor.before(computed.scope, computed.node), list(computed.node.inputs)
    for index, values in computed.known.items():
        inputs[index] = at.constant(values, "sizes")
    computed.node.inputs = inputs


def _numbers(tensor: gs.Tensor, shapes: Shapes) -> NDArray[np.integer] | None:
    """Return the whole numbers that a tensor holds in every run, [*shape], or None."""
    kind, values, numbers = element_type(tensor), shapes.values(tensor), shapes.ints(tensor)
    if kind not in WHOLE or values is None or numbers is None:
        return None
    return np.array(numbers, kind).reshape(values.shape)


def _target(node: gs.Node, shapes: Shapes) -> NDArray[np.integer] | None:
    """Return the sizes of a Reshape as numbers, 0 for that of the same axis before, or None."""
    before, after = shapes.shape(node.inputs[0]), shapes.shape(node.outputs[0])
    if before is None or after is None or node.attrs.get("allowzero", 0):
        return None
    sizes = [
        SAME if axis < len(before) and size == before[axis] and size.static is None else size.static
        for axis, size in enumerate(after)
    ]
    # A number 0 would be read as the size before.
    return None if None in sizes or ZERO in after else np.array(sizes, np.int64)


def _asked(scope: gs.Graph, node: gs.Node, shapes: Shapes) -> Asked | None:
    """Return the tensor that has the size which a Gather takes from the shape of what became of it, or None."""
    shape = node.inputs[0].inputs[0] if node.op == "Gather" and node.inputs[0].inputs else None
    index = small_values(node.inputs[1]) if shape is not None else None
    if shape is None or shape.op != "Shape" or shape.attrs or index is None or index.size != 1:
        return None
    tensor, axis = shape.inputs[0], int(index.reshape(-1)[0])
    found = tensor
    while found.inputs and operator_of(found.inputs[0]).moves == FIRST:
        before = found.inputs[0].inputs[0]
        after, sizes = shapes.shape(found), shapes.shape(before)
        if after is None or sizes is None or after[axis] not in sizes:
            break
        found, axis = before, sizes.index(after[axis])
    return None if found is tensor else Asked(scope, node, found, np.full(index.shape, axis, index.dtype))
