"""Gather on a constant table: codes stay codes, looked-up rows become floats.

    Before: table float [rows, k], indices [...] -- Gather(axis 0) -> [..., k]
    After:  codes [rows, k] (decoded at load to int8), scale [rows]
            indices -- Gather(codes) -- Cast -- Mul(Gather(scale)) -> [..., k]

A table of more axes (experts' weights [experts, k, n], picked by Gather) is looked up by all rows of what is picked:

    indices [...] -- Mul(k) -- Add(0 .. k - 1) -> [..., k] -- rows of [experts * k, n] -> [..., k, n]

A table with its rows along the last axis is looked up transposed. A table that an output projection multiplies with,
too, is stored once: this pass comes before the multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .channels import even_large_rows
from .context import Context, weight_key
from .formats.numbers import is_whole
from .graph.constants import ConstantView, resolve
from .graph.editor import Emitter
from .graph.shapes import rank
from .graph.walk import is_standard
from .lowerings.operators import INT64, cast, unsqueeze_last
from .report import Skip

# A smaller table is not worth its scales: the pass for other constants takes it.
SMALLEST_TABLE_BYTES = 4096
MATRIX = 2


@dataclass(frozen=True)
class Lookup:
    """A Gather on a table, [rows, ..., k], or [k, rows] where `columns` are looked up."""

    scope: gs.Graph
    node: gs.Node
    table: ConstantView
    indices: gs.Tensor
    columns: bool = False

    def matrix(self) -> NDArray[np.floating]:
        """Load the table as [k, all rows]."""
        values = self.table.values()
        return values if self.columns else values.reshape(-1, values.shape[-1]).T


def match(scope: gs.Graph, node: gs.Node, _: Context) -> Lookup | Skip | None:
    """Return the lookup a Gather stands for."""
    if node.op != "Gather" or not is_standard(node):
        return None
    table = resolve(node.inputs[0])
    if table is None or not table.is_float:
        return None
    if resolve(node.inputs[1]) is not None:
        return Skip("its indices are constant: the session folds it")
    axis, axes = int(node.attrs.get("axis", 0)), len(table.shape)
    columns = axes == MATRIX and axis in (1, -1)
    if axes < MATRIX or (axis % axes and not columns):
        return Skip(f"axis {axis} of a table of shape {list(table.shape)}: what is looked up lies apart")
    if columns and rank(node.inputs[1]) is None:
        return Skip(f"the rank of its indices {node.inputs[1].name} is not known")
    if table.nbytes < SMALLEST_TABLE_BYTES:
        return Skip(f"its table has {table.nbytes} bytes, fewer than {SMALLEST_TABLE_BYTES}")
    return Lookup(scope, node, table, node.inputs[1], columns)


def replace(context: Context, matches: list[Lookup]) -> Skip | None:
    """Rewrite one lookup."""
    (lookup,) = matches
    view = lookup.table
    if is_whole(view.values()):
        return Skip("its table holds whole numbers, which are kept exact")
    # A product with the same table would need the other factors.
    alone = all(reader.op == "Gather" for reader in view.source.outputs)
    matrix, key = lookup.matrix(), weight_key(view, transposed=not lookup.columns)
    channels = even_large_rows(matrix) if alone else None
    table = context.store(
        (*key, "even") if channels else key,
        [view.source],
        lambda: channels.rows(matrix) if channels else matrix,
        by_rows=True,
        # What is picked of a table of more axes is large: most of it is decoded once.
        only_rows=alone and len(view.shape) == MATRIX,
    )
    if isinstance(table, Skip):
        return table
    at = context.editor.before(lookup.scope, lookup.node)
    name = table.name
    indices = lookup.indices if len(view.shape) == MATRIX else _all_rows(at, lookup, name)
    rows = context.lowering.lookup(at, table, indices, name, lookup.node.name)
    rows = at.as_type(channels.scale(at, rows) if channels else rows, view.dtype, name)
    axes = rank(lookup.indices) if lookup.columns else 0
    if axes:
        rows = at.op("Transpose", rows, name=f"{name}.columns", perm=[axes, *range(axes)])
    at.deliver(rows, lookup.node)
    return None


def _all_rows(at: Emitter, lookup: Lookup, name: str) -> gs.Variable:
    """Return the numbers of all rows of what is picked: [...] to [..., *inner axes]; negative ones stay so."""
    inner = lookup.table.shape[1:-1]
    count = prod(inner)
    indices = cast(at, lookup.indices, INT64, f"{name}.picked")
    first = at.op(
        "Mul", indices, at.constant(np.array(count, np.int64), "stride"), name=f"{name}.first", dtype=np.int64
    )
    first = unsqueeze_last(at, first, len(inner), f"{name}.first")
    offsets = at.constant(np.arange(count, dtype=np.int64).reshape(inner), f"{name}.offsets")
    return at.op("Add", first, offsets, name=f"{name}.all", dtype=np.int64)
