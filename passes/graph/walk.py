"""Going through a graph, bodies of If, Loop and Scan included."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs


def walk(graph: gs.Graph) -> Iterator[tuple[gs.Graph, gs.Node]]:
    """Yield (graph, node) for every node, bodies of If, Loop and Scan included, in graph order."""
    for node in graph.nodes:
        yield graph, node
        for body in node.subgraphs():
            yield from walk(body)


def scopes(graph: gs.Graph) -> list[gs.Graph]:
    """Return a graph and all bodies of If, Loop and Scan in it."""
    return [graph, *graph.subgraphs(recursive=True)]


def output_names(graph: gs.Graph) -> frozenset[str]:
    """Return the names of the outputs of a graph and of all bodies in it, which have to stay."""
    return frozenset(tensor.name for scope in scopes(graph) for tensor in scope.outputs)


def has_body(node: gs.Node) -> bool:
    """Tell whether a node is an If, a Loop, a Scan or the like."""
    return next(node.subgraphs(), None) is not None


def is_standard(node: gs.Node) -> bool:
    """Tell whether a node is one of ONNX's own operators."""
    return node.domain in (None, "", "ai.onnx")
