"""One constant for equal weights, also when one of them is the other transposed.

    Before: table [v, k] -- Gather,  projection [k, v] equal to the table transposed -- MatMul
    After:  table [v, k] -- Gather,  table -- Transpose -- MatMul

Exporters fold the transposition of a tied output projection and write the table twice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from .context import Context
from .graph.constants import constant_bytes, load, reader_of, resolve
from .graph.new import redirect
from .graph.walk import walk
from .report import Skip, TensorReport

SMALLEST_BYTES = 4096
# Values compared before whole weights are loaded; unequal weights differ in almost all of them. A look at one may
# bring 2 MB of a mapped file into memory.
SAMPLE = 4
MATRIX = 2


@dataclass(frozen=True)
class Copy:
    """A constant whose values another one holds already."""

    node: gs.Node
    copy: gs.Constant
    original: gs.Constant
    transposed: bool


def find_copies(context: Context) -> dict[int, Copy]:
    """Return the copies in a graph, one a node, by the id of the first node that reads it."""
    originals: defaultdict[tuple[Any, ...], list[gs.Constant]] = defaultdict(list)
    copies: dict[int, Copy] = {}
    for _, node in walk(context.editor.graph):
        for tensor in node.inputs:
            if not isinstance(tensor, gs.Constant) or tensor.outputs[0] is not node or context.is_output(tensor):
                continue
            view = resolve(tensor)
            if view is None or not view.is_float or constant_bytes(tensor) < SMALLEST_BYTES:
                continue
            known = originals[(view.dtype, *sorted(view.shape))]
            copy = _copy(node, tensor, known)
            if copy is not None:
                copies[id(node)] = copy
                break
            known.append(tensor)
    return copies


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Copy | None:
    """Return the copy that a node is the first to read."""
    del scope
    return context.found(find_copies).get(id(node))


def replace(context: Context, matches: list[Copy]) -> Skip | None:
    """Let the readers of the copy read the original."""
    copy, original = matches[0].copy, matches[0].original
    instead: gs.Tensor = original
    if matches[0].transposed:
        instead = context.editor.at_load().op("Transpose", original, name=f"{original.name}.transposed", perm=[1, 0])
    reader = reader_of(copy)
    op, node = (reader.op, reader.name) if reader else ("", "")
    redirect(copy, instead)
    context.report.tensors.append(
        TensorReport(copy.name, tuple(copy.shape), 0, 0, "tied", constant_bytes(copy), 0, float("inf"), op, node)
    )
    return None


def _copy(node: gs.Node, tensor: gs.Constant, originals: list[gs.Constant]) -> Copy | None:
    """Return what a constant is where it equals one of those met before."""
    for original in originals:
        for transposed in (False, True):
            if original is not tensor and _equal(tensor, original, transposed):
                return Copy(node, tensor, original, transposed)
    return None


def _equal(copy: gs.Constant, original: gs.Constant, transposed: bool) -> bool:
    shape = tuple(original.shape)
    if tuple(copy.shape) != (shape[::-1] if transposed else shape) or (transposed and len(shape) != MATRIX):
        return False
    a, b = load(copy), load(original)
    b = b.T if transposed else b
    spots = np.unravel_index(np.linspace(0, a.size - 1, SAMPLE).astype(np.int64), a.shape)
    return bool(np.array_equal(a[spots], b[spots]) and np.array_equal(a, b))
