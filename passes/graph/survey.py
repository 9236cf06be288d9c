"""What became of every node of the input model, once all passes are done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_graphsurgeon as gs

from ..report import EdgeReport, NodeReport, PassReport
from .activations import Activations, OriginalNode
from .operators import operator_of
from .walk import walk


def survey(
    graph: gs.Graph, activations: Activations, reports: Iterable[PassReport], edges: Iterable[EdgeReport]
) -> list[NodeReport]:
    """Return a report per node of the input model, in graph order; `edges` tell what became of its results."""
    remaining = {id(node) for _, node in walk(graph)}
    edge_of = {edge.tensor: edge for edge in edges}
    reasons = {
        skipped.node: f"{report.name}: {skipped.reason}"
        for report in reversed(list(reports))  # of several reasons the first pass's stays
        if report.computes
        for skipped in report.skipped
    }
    return [
        NodeReport(node.name, node.op, *_what_became(node, id(node.node) in remaining, activations, reasons, edge_of))
        for node in activations.nodes
        if node.outputs and node.op != "Constant"
    ]


def _what_became(
    node: OriginalNode,
    remains: bool,
    activations: Activations,
    reasons: Mapping[str, str],
    edge_of: Mapping[str, EdgeReport],
) -> tuple[str, str]:
    results = [name for name in node.outputs if name in activations.types]
    if not results:
        return "aside", ""
    if operator_of(node.node).moves:
        return "moves", ""
    if not remains:
        return "replaced", ""
    reason = reasons.get(node.node.name) or reasons.get(node.op if not node.node.name else "")
    if reason:
        return "left", reason
    read = [tensor.name for tensor in node.node.inputs if tensor.name in activations.types]
    edges = [edge for edge in map(edge_of.get, [*results, *read]) if edge is not None]
    left = next((edge for edge in edges if _is_left(edge)), None)
    return ("left", f"{left.tensor}: {left.reason}") if left else ("between", "")


def _is_left(edge: EdgeReport) -> bool:
    return edge.how == "left" and not edge.reason.startswith("goes to outputs")
