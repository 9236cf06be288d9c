"""Rows that nobody reads are not computed: a classifier reads one token, so its last layer needs one query.

Before: x [b, s, k] -- products, additions, normalizations -- y [b, s, k] -- Gather(first) -> [b, k]
After:  x [b, s, k] -- Slice(first) -- the same nodes -- y [b, 1, k] -- Gather(first) -> [b, k]
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import Rewrite
from .context import Context
from .graph.constants import load
from .graph.shapes import END, ONE
from .graph.walk import scopes
from .patterns.rows import OneRow, match_one_row
from .report import Skip

# Slice takes its bounds as inputs from here on.
OPSET_SLICE = 10


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[OneRow] | None:
    """Return what computes more rows than the one that is read."""
    form = match_one_row(node, context.shapes, context.is_output)
    if form is None or context.editor.opset < OPSET_SLICE:
        return None
    # What a body is given turn by turn, no node makes: there is no place behind that.
    given = {id(tensor) for body in scopes(context.editor.graph)[1:] for tensor in body.inputs}
    return None if any(id(each.inputs[number]) in given for each, number in form.reads()) else Rewrite(scope, form)


def replace(context: Context, matches: list[Rewrite[OneRow]]) -> Skip | None:
    """Take the row out of what comes from further back, once each; the nodes then compute no other."""
    (rewrite,) = matches
    form = rewrite.form
    rows: dict[int, gs.Tensor] = {id(node.outputs[0]): node.outputs[0] for node in form.nodes[1:]}
    for node, number in form.reads():
        tensor = node.inputs[number]
        if id(tensor) not in rows:
            rows[id(tensor)] = _take(context, tensor, form.index, form.axis)
        node.inputs[number] = rows[id(tensor)]
        _note(context, tensor, rows[id(tensor)], form.axis)
    return None


def _take(context: Context, tensor: gs.Tensor, index: int, axis: int) -> gs.Tensor:
    """Return one row of a tensor, which keeps its axes."""
    editor, graph = context.editor, context.editor.graph
    at = editor.after(graph, tensor.inputs[0]) if tensor.inputs else editor.before(graph, graph.nodes[0])
    name = f"{tensor.name}.row"
    if isinstance(tensor, gs.Constant):
        return at.constant(np.take(load(tensor), [index], axis), name)
    # Of no row at all it makes none, where Gather would fail.
    bounds = [(index, "start"), (index + 1 or END, "end"), (axis, "axis")]
    row = at.op("Slice", tensor, *(at.constant(np.array([i]), n) for i, n in bounds), name=name, dtype=tensor.dtype)
    context.rows_of[row.name] = tensor.name
    return row


def _note(context: Context, tensor: gs.Tensor, row: gs.Tensor, axis: int) -> None:
    """Note the shape of a tensor of which one row is left."""
    shape = context.shapes.shape(tensor)
    assert shape is not None
    context.shapes.note(row, (*shape[:axis], ONE, *shape[len(shape) + axis + 1 :]))
