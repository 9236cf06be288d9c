"""Graphs as text, and what a recognizer finds in them."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from bct_onnx import files
from passes.graph.follow import find_shapes
from passes.graph.tidy import lift_constant_nodes, merge_equal
from passes.graph.walk import walk
from passes.report import Skip
from tests.helpers import model

FIXTURES = sorted((Path(__file__).parents[3] / "models" / "fixtures").glob("*.onnx"))


def graph_of(text, folder, opset=21, **weights):
    """Return the graph of a model in ONNX's text form, with initializers, as passes see it."""
    path = folder / "form.onnx"
    onnx.save(model(text, opset, **{name: np.asarray(value) for name, value in weights.items()}), path)
    return read_graph(path)


def read_graph(path: Path):
    graph = files.read(path).graph()
    lift_constant_nodes(graph)
    merge_equal(graph)
    find_shapes(graph)
    return graph


def find(graph, match):
    """Return (forms, skips) that `match(node, is_output)` finds in a graph."""
    outputs = {tensor.name for scope in (graph, *graph.subgraphs(recursive=True)) for tensor in scope.outputs}
    found = [match(node, lambda tensor: tensor.name in outputs) for _, node in walk(graph)]
    return [f for f in found if f is not None and not isinstance(f, Skip)], [f for f in found if isinstance(f, Skip)]


def count(graph, *ops):
    """Return how many nodes of these operators a graph has."""
    counts = Counter(node.op for _, node in walk(graph))
    return sum(counts[op] for op in ops)
