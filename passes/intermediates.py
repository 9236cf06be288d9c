"""Intermediate results on the edges between operators, residual sums included: blockwise codes with shifts.

Before: node -> x [..., k] -- readers
After:  node -> x -- CodeBlocks -> x in blocks [..., k] -- readers

Left alone, each with its reason: what the readers quantize themselves (codes already), what only moves codes, what
holds a mask's huge values, what angles are made of, and what leaves the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from .constant import turned_by
from .context import Context
from .functions.function import function_of
from .functions.quantize_blocks import ANY_RANK, CODE_TYPES, KNOWN
from .graph.activations import Activations, find_activations
from .graph.features import OPSET_INT4
from .graph.new import redirect
from .graph.operators import Trait, operator_of, traits_of
from .graph.shapes import rank
from .graph.survey import survey
from .graph.walk import walk
from .lowerings.operators import FLOAT, cast
from .report import EdgeReport, PassReport, Skip

OPSET = OPSET_INT4
# Operators that passes write and that take floats as they are.
FLOAT_READERS = frozenset({"Add", "MatMul"})
# Blocks where weights have whole columns.
BLOCK_SIZE = 32

# What becomes of an edge.
CODED, MOVED, READER, LEFT = "coded", "moved", "reader", "left"


@dataclass(frozen=True)
class Results:
    """A node and those of its outputs that become codes, each with the readers that then read the codes."""

    scope: gs.Graph
    node: gs.Node
    edges: tuple[tuple[gs.Tensor, tuple[gs.Node, ...]], ...]


@dataclass(frozen=True)
class Edge:
    """What becomes of an intermediate result, and the readers that are to read codes."""

    report: EdgeReport
    readers: tuple[gs.Node, ...]


def find_results(context: Context) -> Activations:
    """Return the intermediate results of the input model."""
    return find_activations(context.editor.graph)


def find_edges(context: Context) -> dict[int, Edge]:
    """Return what becomes of each intermediate result, by its id (branches may use a name twice), in graph order."""
    results, edges = context.found(find_results), dict[int, Edge]()
    for _, node in walk(context.editor.graph):
        for tensor in node.outputs:
            if tensor.name not in results.types or not tensor.outputs:
                continue
            how, reason, readers = _decide(tensor, node, context, edges)
            kept = context.kept(node, tensor.name) if how == CODED else None
            if kept:
                how, reason, readers = LEFT, kept.reason, ()
            maker = results.makers.get(tensor.name, node.op)
            edges[id(tensor)] = Edge(EdgeReport(tensor.name, maker, how, reason), readers)
    return edges


def prepare(graph: gs.Graph, context: Context) -> None:
    """Look at the intermediate results before other passes rewrite the graph."""
    del graph
    context.found(find_results)


def finish(graph: gs.Graph, context: Context, reports: list[PassReport]) -> None:
    """Report what became of every intermediate result and of every node."""
    report = next(report for report in reports if report.name == "intermediates")
    report.edges = [edge.report for edge in context.found(find_edges).values()]
    report.nodes = survey(graph, context.found(find_results), reports, report.edges)


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Results | None:
    """Return the outputs of a node that become codes."""
    edges = context.found(find_edges)
    found = [(tensor, edges[id(tensor)]) for tensor in node.outputs if id(tensor) in edges]
    coded = tuple((tensor, edge.readers) for tensor, edge in found if edge.report.how == CODED)
    return Results(scope, node, coded) if coded else None


def replace(context: Context, matches: list[Results]) -> Skip | None:
    """Let the readers of a node's results read them through codes."""
    found = matches[0]
    at = context.editor.after(found.scope, found.node)
    code, block = CODE_TYPES[context.options.activations], context.options.block_size or BLOCK_SIZE
    for tensor, readers in found.edges:
        dtype, name = context.found(find_results).types[tensor.name], f"edge{context.report.replaced}"
        x = tensor if dtype == "float32" else cast(at, tensor, FLOAT, f"{name}.float")
        attrs = {"block": [block], "block_size": block, "ulps": code.ulps, "output_dtype": code.onnx}
        (coded,) = at.call(ANY_RANK if rank(x) is None else KNOWN, x, name=name, attrs=attrs)
        redirect(tensor, at.as_type(coded, dtype, name), readers)
    return None


def _decide(
    tensor: gs.Tensor, node: gs.Node, context: Context, edges: Mapping[int, Edge]
) -> tuple[str, str, tuple[gs.Node, ...]]:
    """Return what becomes of a tensor, why, and the readers that are to read codes."""
    if rank(tensor) == 0:
        return LEFT, "a single number: no block", ()
    moves = operator_of(node).moves
    if node.op == "DequantizeLinear" or (moves and _carries(node, context.found(find_results), edges)):
        return MOVED, "moves values that are codes already", ()
    if turn := turned_by(tensor):
        return LEFT, f"{turn} is taken of it, whose digits count behind the turns", ()
    takes = [(reader, _takes(reader, context)) for reader in _distinct(tensor)]
    kinds: set[str] = set().union(*(kinds for _, kinds in takes))
    if tensor.name in context.found(find_results).masked:
        if "float" in kinds:
            return LEFT, "may hold a mask's huge values, which no block's scale should stretch to", ()
        return READER, "its readers quantize it themselves, as steps below the largest value", ()
    wanted = {"float"} if context.options.activations == "int8" else {"float", "codes"}
    if kinds & wanted:
        return CODED, "", tuple(reader for reader, kinds in takes if kinds & wanted)
    if "codes" in kinds:
        return READER, "its readers quantize it themselves", ()
    return LEFT, "goes to outputs of the graph only", ()


def _carries(node: gs.Node, results: Activations, edges: Mapping[int, Edge]) -> bool:
    """Tell whether all floats that a node moves are codes already."""
    floats = results.types.keys() | results.inputs
    moved = [edges.get(id(tensor)) for tensor in node.inputs if tensor.name in floats]
    return bool(moved) and all(edge is not None and edge.report.how in (CODED, MOVED) for edge in moved)


def _distinct(tensor: gs.Tensor) -> list[gs.Node]:
    return list({id(reader): reader for reader in tensor.outputs}.values())


def _takes(reader: gs.Node, context: Context) -> set[str]:
    """Return in which forms a reader, or what it moves the tensor to, takes a tensor: codes, float, output."""
    if Trait.SHAPES in traits_of(reader):
        return set()
    if Trait.QUANTIZES in traits_of(reader):
        return {"codes"}
    if not operator_of(reader).moves:
        function = function_of(reader)
        if function is not None:
            return {"float"} if function.reads_floats else {"codes"}
        if id(reader) in context.found(find_results).ids or reader.op in FLOAT_READERS:
            return {"float"}
        return {"codes"}
    kinds: set[str] = set()
    for output in reader.outputs:
        if context.is_output(output):
            kinds.add("output")
        for further in _distinct(output):
            kinds |= _takes(further, context)
    return kinds
