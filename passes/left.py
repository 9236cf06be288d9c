"""Which float constants of the input model are floats still, once all passes are done, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import SparseValues

from .constant import SMALLEST_HALF_BYTES
from .graph.constants import constant_bytes, last_reader
from .graph.new import NewConstant
from .graph.types import FLOAT_NAMES
from .graph.walk import walk
from .report import PassReport
from .sparse import sparse_bytes

# Passes in the order in which their reasons count: those that know products and tables before those that take the rest.
_ASKED = ("matmul", "gather", "unfuse", "sparse", "constant", "layer_normalization", "fold")


@dataclass(frozen=True)
class LeftInFloat:
    """A constant of the input model that was left in float.

    Attributes:
        name: its name in the input model.
        bytes: bytes in the file.
        op: operator that reads it.
        node: name of that node.
        reason: why it was left: one sentence with the offending value.
    """

    name: str
    bytes: int
    op: str
    node: str
    reason: str


def left_in_float(graph: gs.Graph, reports: Iterable[PassReport]) -> list[LeftInFloat]:
    """Return the float constants of the input model in a graph after `run`, the largest first."""
    found = {report.name: report for report in reports}
    skips = [skipped for name in _ASKED if name in found for skipped in found[name].skipped]
    left: dict[int, LeftInFloat] = {}
    for _, node in walk(graph):
        for tensor in node.inputs:
            if not isinstance(tensor, gs.Constant) or id(tensor) in left or isinstance(tensor, NewConstant):
                continue
            if getattr(tensor.dtype, "name", None) in FLOAT_NAMES:
                reader = last_reader(node)
                size, label = _bytes(tensor), reader.name or reader.op
                about = [skip.reason for skip in skips if skip.reason.startswith(f"{tensor.name} ")]
                about += [skip.reason for skip in skips if tensor.name in skip.constants]
                reason = about[0] if about else _why(size, reader, "constant" in found)
                left[id(tensor)] = LeftInFloat(tensor.name, size, reader.op, label, reason)
    return sorted(left.values(), key=lambda each: -each.bytes)


def _bytes(constant: gs.Constant) -> int:
    values = constant._values
    return sparse_bytes(values.tensor) if isinstance(values, SparseValues) else constant_bytes(constant)


def _why(size: int, reader: gs.Node, asked: bool) -> str:
    if size < SMALLEST_HALF_BYTES:
        return f"it has {size} bytes, fewer than {SMALLEST_HALF_BYTES}"
    return f"no pass takes a constant of {reader.op}" if asked else "the passes for constants do not run"
