"""Gather on a constant table: codes stay codes, looked-up rows become floats.

    Before: table float [rows, k], indices [...] -- Gather(axis 0) -> [..., k]
    After:  codes [rows, k] (decoded at load to int8), scale [rows]
            indices -- Gather(codes) -- Cast -- Mul(Gather(scale)) -> [..., k]

A table that an output projection multiplies with, too, is stored once: this pass comes before the multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from .channels import even_large_rows
from .context import Context, weight_key
from .formats.numbers import is_whole
from .graph.constants import ConstantView, resolve
from .graph.editor import is_standard
from .report import Skip

# A smaller table is not worth its scales: the pass for other constants takes it.
SMALLEST_TABLE_BYTES = 4096


@dataclass(frozen=True)
class Lookup:
    """A Gather on a table, [rows, k]."""

    scope: gs.Graph
    node: gs.Node
    table: ConstantView
    indices: gs.Tensor


def match(scope: gs.Graph, node: gs.Node, _: Context) -> Lookup | Skip | None:
    """Return the lookup a Gather stands for."""
    if node.op != "Gather" or not is_standard(node):
        return None
    table = resolve(node.inputs[0])
    if table is None or not table.is_float:
        return None
    if resolve(node.inputs[1]) is not None:
        return Skip("its indices are constant: the session folds it")
    axis = int(node.attrs.get("axis", 0))
    if len(table.shape) != 2 or axis not in (0, -2):
        return Skip(
            f"axis {axis} of a table of shape {list(table.shape)}: rows of a matrix are looked up, nothing else"
        )
    if table.nbytes < SMALLEST_TABLE_BYTES:
        return Skip(f"its table has {table.nbytes} bytes, fewer than {SMALLEST_TABLE_BYTES}")
    return Lookup(scope, node, table, node.inputs[1])


def replace(context: Context, matches: list[Lookup]) -> Skip | None:
    """Rewrite one lookup."""
    lookup = matches[0]
    if is_whole(lookup.table.values()):
        return Skip("its table holds whole numbers, which are kept exact")
    # A product with the same table would need the other factors.
    alone = all(reader.op == "Gather" for reader in lookup.table.source.outputs)
    matrix, key = lookup.table.values().T, weight_key(lookup.table, transposed=True)
    channels = even_large_rows(matrix) if alone else None
    table = context.store(
        (*key, "even") if channels else key,
        [lookup.table.source],
        lambda: channels.rows(matrix) if channels else matrix,
        by_rows=True,
    )
    if isinstance(table, Skip):
        return table
    at = context.editor.before(lookup.scope, lookup.node)
    name = table.name
    rows = context.lowering.lookup(at, table, lookup.indices, name)
    rows = channels.scale(at, rows) if channels else rows
    at.deliver(at.as_type(rows, lookup.table.dtype, name), lookup.node)
    return None
