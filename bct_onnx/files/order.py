"""Nodes in an order in which each comes behind what it reads, as ONNX asks and native code relies on."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

import onnx


class CycleError(Exception):
    """Nodes read each other's results; the message names one of them."""


def sort_model(model: onnx.ModelProto) -> None:
    """Sort the nodes of a model, of its bodies and functions in place; raises CycleError.

    ONNX Runtime takes nodes in any order. What is sorted already stays as it is.
    """
    _sort(model.graph)
    for function in model.functions:
        _sort(function)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the bodies in it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs_of(body)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the bodies in them."""
    for each in graphs_of(graph):
        yield from each.node


def _sort(graph: Any) -> set[str]:
    """Sort a GraphProto or FunctionProto and return the names that it reads from around it."""
    nodes = graph.node
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    reads = [set(node.input).union(*map(_sort, bodies(node))) for node in nodes]
    before = [{maker[name] for name in names if name in maker} for names in reads]
    if any(max(needed, default=-1) >= index for index, needed in enumerate(before)):
        order = _order(before)
        if len(order) < len(nodes):
            node = nodes[min(set(range(len(nodes))).difference(order))]
            raise CycleError(f"node {node.name or node.op_type!r} reads what is computed from its own result")
        nodes_in_order = [nodes[index] for index in order]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes_in_order]
        del nodes[:]
        nodes.extend(copies)
    return set().union(*reads, _names(graph.output)) - maker.keys() - _given(graph)


def _order(before: list[set[int]]) -> list[int]:
    """Return the places of nodes, each behind those in `before`, else as they are; without what is in a cycle."""
    waiting = [len(needed) for needed in before]
    behind: list[list[int]] = [[] for _ in before]
    for index, needed in enumerate(before):
        for other in needed:
            behind[other].append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in behind[index]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order


def _given(graph: Any) -> set[str]:
    names = _names(graph.input)
    if isinstance(graph, onnx.GraphProto):
        names |= {tensor.name for tensor in graph.initializer}
        names |= {tensor.values.name for tensor in graph.sparse_initializer}
    return names


def _names(values: Iterable[Any]) -> set[str]:
    """Return the names of a graph's values, or of a function's, which are names."""
    return {value if isinstance(value, str) else value.name for value in values}
