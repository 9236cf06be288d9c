"""Shapes, element types and small values of tensors, followed from what a graph declares through its nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx_graphsurgeon as gs

from .operators import elements_of, operator_of
from .shapes import Shapes
from .types import note_types
from .walk import scopes


def find_shapes(graph: gs.Graph, found: Shapes | None = None) -> Shapes:
    """Find out what can be known of the tensors of a graph and its bodies, and write it on those that do not say.

    `found` is what is known already; without, nothing is.
    """
    found = found or Shapes()
    for scope in scopes(graph):
        for tensor in scope.inputs:
            # In a body a name may stand for another size in each turn.
            found.declare(tensor, names=scope is graph)
    for scope, node in _inner_first(graph):
        follow(found, node)
        for output in node.outputs:
            found.declare(output, names=scope is graph)
    return found


def follow(found: Shapes, node: gs.Node) -> None:
    """Find out what a node makes of what is known."""
    operator = operator_of(node)
    note_types(node, operator)
    # Parameters that do not fit are the runtime's to judge.
    if operator.shapes is not None:
        with contextlib.suppress(IndexError, KeyError, TypeError, ValueError):
            for output, shape in zip(node.outputs, operator.shapes(found, node), strict=False):
                found.note(output, shape)
    with contextlib.suppress(IndexError, KeyError, TypeError, ValueError):
        found.note(node.outputs[0], None, elements_of(found, node, operator))


def _inner_first(graph: gs.Graph) -> Iterator[tuple[gs.Graph, gs.Node]]:
    """Yield (graph, node) for every node, those of its bodies before it."""
    for node in graph.nodes:
        for body in node.subgraphs():
            yield from _inner_first(body)
        yield graph, node
