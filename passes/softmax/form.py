"""Softmax as one node or as Exp, ReduceSum and Div, with the additive mask before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.constants import resolve
from ..graph.operators import Trait, traits_of
from ..graph.shapes import rank
from ..graph.types import element_type
from ..graph.walk import is_standard
from ..patterns.region import IsOutput, readers, regions
from ..report import Skip

# From here on Softmax works along one axis; before, on the matrix that the axis cuts the tensor into.
OPSET_ONE_AXIS = 13
# Decomposed forms are compared with the function; float64 leaves no more than this.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Softmax:
    """A softmax along one axis.

    Attributes:
        node: the last node of the form.
        x: what the softmax is taken of.
        axis: the axis, negative where it is counted from the end.
        dtype: name of the numpy type of x, or None where the graph does not tell.
        scores: x without its additive mask; x itself where there is none.
        mask: what is added to the scores, or None.
        add: the Add of scores and mask, or None; nobody else reads its output.
    """

    node: gs.Node
    x: gs.Tensor
    axis: int
    dtype: str | None
    scores: gs.Tensor
    mask: gs.Tensor | None = None
    add: gs.Node | None = None


def match_softmax(node: gs.Node, opset: int, is_output: IsOutput) -> Softmax | Skip | None:
    """Return the softmax that ends in a node, why it is none that can be rewritten, or None."""
    if node.op == "Softmax" and is_standard(node):
        axis = _axis(node, opset)
        return axis if isinstance(axis, Skip) else _with_mask(node, node.inputs[0], axis, is_output)
    if node.op not in ("Div", "Mul"):
        return None
    return _decomposed(node, is_output)


def _decomposed(node: gs.Node, is_output: IsOutput) -> Softmax | Skip | None:
    """Return the softmax that a node's region computes; of several the largest, which subtracts the maximum itself."""
    probes = np.random.default_rng(7).normal(0, 3, (4, 7))
    expected = np.exp(probes) / np.exp(probes).sum(-1, keepdims=True)
    found: Softmax | Skip | None = None
    for region in regions(node):
        if not {"Exp", "ReduceSum"} <= region.ops or any(constant.size != 1 for constant in region.constants):
            continue
        y = region(probes)
        if y.shape != expected.shape or not np.abs(y - expected).max() <= TOLERANCE:
            continue
        leak = region.leak(is_output)
        if not leak:
            found = _with_mask(node, region.x, -1, is_output)
        elif found is None:
            found = Skip(leak)
    return found


def _axis(node: gs.Node, opset: int) -> int | Skip:
    """Return the axis, or why the softmax is not along one."""
    if opset >= OPSET_ONE_AXIS:
        return int(node.attrs.get("axis", -1))
    axis, dims = int(node.attrs.get("axis", 1)), rank(node.inputs[0])
    if axis == -1 or (dims is not None and axis % dims == dims - 1):
        return -1
    shape = node.inputs[0].shape
    if shape is not None and all(dim == 1 for dim in shape[axis + 1 :]):
        return axis
    known = "of unknown rank" if dims is None else f"of rank {dims}"
    return Skip(f"before opset 13 its axis {axis} of a tensor {known} takes several axes as one")


def _with_mask(node: gs.Node, x: gs.Tensor, axis: int, is_output: IsOutput) -> Softmax:
    plain, total = Softmax(node, x, axis, element_type(x), x), x
    while len(readers(total)) == 1 and not is_output(total) and total.inputs and is_standard(total.inputs[0]):
        maker = total.inputs[0]
        if maker.op == "Add":
            left, right = maker.inputs
            scores, mask = (right, left) if _is_mask(left) and not _is_mask(right) else (left, right)
            return Softmax(node, x, axis, plain.dtype, scores, mask, maker)
        if maker.op not in ("Cast", "Identity"):
            break
        total = maker.inputs[0]
    return plain


def _is_mask(tensor: gs.Tensor) -> bool:
    """Tell whether a tensor does not come out of a product: what is added to the scores, not the scores."""
    seen = tensor
    for _ in range(4):
        if resolve(seen) is not None or not seen.inputs:
            return True
        if Trait.MULTIPLIES in traits_of(seen.inputs[0]):
            return False
        seen = seen.inputs[0].inputs[0]
    return True
