"""Which axes nodes work along."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .constants import small_values
from .operators import Trait, traits_of
from .shapes import rank


def over_last_axis(node: gs.Node) -> bool:
    """Tell whether a node is a reduction over the last axis alone, which is kept."""
    return bool(node.attrs.get("keepdims", 1)) and reduced_axes(node) == [-1]


def reduced_axes(node: gs.Node) -> list[int] | None:
    """Return the axes that a reduction takes, counted from the end, or None where they are not known."""
    if Trait.REDUCES not in traits_of(node):
        return None
    axes = node.attrs.get("axes", small_values(node.inputs[1]) if len(node.inputs) > 1 else None)
    count = rank(node.inputs[0])
    return None if axes is None else [int(axis) if axis < 0 or not count else int(axis) - count for axis in axes]


def is_last_axis(node: gs.Node) -> bool:
    """Tell whether a node works along the last axis of its first input."""
    return int(node.attrs.get("axis", 0)) in (-1, (rank(node.inputs[0]) or 0) - 1)
