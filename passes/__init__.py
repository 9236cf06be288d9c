"""Graph in, graph out: each pass rewrites one kind of node with a format and a lowering."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import onnx_graphsurgeon as gs

from . import constant, gather, matmul, tied
from .context import Context
from .graph.editor import Editor, walk
from .graph.tidy import lift_constant_nodes, merge_equal, shorten_names
from .lowerings.table import LOWERINGS
from .options import Options
from .report import PassReport, Skip, SkippedNode

__all__ = ["CHAIN", "LOWERINGS", "Options", "PassReport", "Progress", "required_opset", "run"]

# The chain, in order.
CHAIN: tuple[ModuleType, ...] = (
    tied,  # first: what is stored once must be one constant
    gather,  # before the multiplications, which transpose a table that is there, not the other way round
    matmul,
    constant,  # last: what is left
)

Progress = Callable[[str, int, int], None]


def run(graph: gs.Graph, options: Options, progress: Progress | None = None) -> list[PassReport]:
    """Rewrite `graph` in place and return a report per pass.

    `progress(pass name, done, total)` is called before every replacement. The graph's opset must reach
    `required_opset(options)`.
    """
    lift_constant_nodes(graph)
    merge_equal(graph)
    context = Context(Editor(graph), options, LOWERINGS[options.lowering](), PassReport(""))
    reports = [_run_pass(module, graph, context, progress) for module in CHAIN]
    shorten_names(graph)
    return reports


def required_opset(options: Options) -> int:
    """Return the lowest opset that the request's weights need."""
    return LOWERINGS[options.lowering]().opset(options.bits)


def _run_pass(module: ModuleType, graph: gs.Graph, context: Context, progress: Progress | None) -> PassReport:
    report = context.report = PassReport(module.__name__.rpartition(".")[2])
    matches: list[Any] = []
    for scope, node in walk(graph):
        found = module.match(scope, node, context)
        kept = context.options.keeps(node.name, *(tensor.name for tensor in node.inputs)) if found else None
        if isinstance(found, Skip) or kept:
            reason = f"kept by the pattern {kept!r}" if kept else found.reason
            report.skipped.append(SkippedNode(node.name or node.op, reason))
        elif found is not None:
            matches.append(found)
    groups = module.groups(matches)
    for done, group in enumerate(groups):
        if progress:
            progress(report.name, done, len(groups))
        skip = module.replace(context, group)
        if skip is None:
            report.replaced += len(group)
        else:
            report.skipped += [SkippedNode(match.node.name or match.node.op, skip.reason) for match in group]
    context.editor.flush()
    return report
