"""Look-ups of rows that are written as look-ups of elements."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.constants import resolve
from ..graph.editor import Emitter
from .base import Writer


def gather_nd(node: gs.Node) -> Writer | None:
    """Return GatherND of one index into a constant, [..., 1], as Gather of rows."""
    table, indices = node.inputs
    single = indices.shape is not None and len(indices.shape) > 0 and indices.shape[-1] == 1
    if resolve(table) is None or resolve(indices) is not None or not single or node.attrs.get("batch_dims", 0):
        return None

    def write(at: Emitter) -> None:
        axis = at.constant(np.array([-1], np.int64), "last_axis")
        rows = at.op("Squeeze", indices, axis, name=f"{indices.name}.rows", dtype=indices.dtype)
        at.deliver(at.op("Gather", table, rows, name=node.outputs[0].name, axis=0), node)

    return write
