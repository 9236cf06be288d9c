"""Shapes and small values of all tensors of a graph, followed through its nodes once."""

from __future__ import annotations

import contextlib

import onnx_graphsurgeon as gs

from ..editor import is_standard, scopes, walk
from .known import Shapes
from .shape_rules import shape_of, split_shapes
from .value_rules import elements_of


def find_shapes(graph: gs.Graph) -> Shapes:
    """Return what is known of the tensors of a graph and its bodies."""
    found = Shapes()
    for scope in scopes(graph):
        for tensor in scope.inputs:
            # In a body a name may stand for another size in each turn.
            found.declare(tensor, names=scope is graph)
    for scope, node in walk(graph):
        if node.outputs and (is_standard(node) or node.domain == "com.microsoft"):
            # Parameters that do not fit are the runtime's to judge.
            with contextlib.suppress(IndexError, KeyError, TypeError, ValueError):
                _follow(found, node)
        for output in node.outputs:
            found.declare(output, names=scope is graph)
    return found


def _follow(found: Shapes, node: gs.Node) -> None:
    if node.op == "Split":
        for output, shape in zip(node.outputs, split_shapes(found, node), strict=True):
            found.note(output, shape)
    else:
        found.note(node.outputs[0], shape_of(found, node), elements_of(found, node))
