"""Sparse initializers as dense ones, where codes of all values take less room than values and places of some.

Before: sparse [*shape], values [m], indices int64 [m] or [m, axes] -- any reader
After:  constant [*shape] -- the same reader, for the passes that follow
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import SparseValues

from .context import Context
from .graph.constants import dense_values
from .graph.new import redirect
from .graph.types import FLOAT_NAMES
from .report import Skip

# Smaller constants may stay floats, and would then be larger than before.
SMALLEST_BYTES = 4096
# Larger magnitudes are masks, which no pass stores as codes.
LARGEST_MAGNITUDE = 65504.0
BITS = 8


@dataclass(frozen=True)
class Sparse:
    """A node and the sparse initializers that it reads."""

    node: gs.Node
    constants: tuple[gs.Constant, ...]


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Sparse | Skip | None:
    """Return the sparse initializers of a node that are worth being dense."""
    del scope
    sparse = {id(t): t for t in node.inputs if isinstance(t, gs.Constant) and isinstance(t._values, SparseValues)}
    reasons = {key: _reason(constant, max(context.options.widths)) for key, constant in sparse.items()}
    worth = tuple(constant for key, constant in sparse.items() if not reasons[key])
    if worth or not sparse:
        return Sparse(node, worth) if worth else None
    return Skip("; ".join(filter(None, reasons.values())))


def replace(context: Context, matches: list[Sparse]) -> Skip | None:
    """Let all readers of the initializers read dense ones."""
    for constant in matches[0].constants:
        values = dense_values(constant._values.tensor)
        redirect(constant, gs.Constant(constant.name, context.editor.move(values)))
    return None


def sparse_bytes(sparse: onnx.SparseTensorProto) -> int:
    """Return the bytes of a sparse tensor's values and places."""
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in (sparse.values, sparse.indices)]
    return sum(int(array.nbytes) for array in tensors)


def _reason(constant: gs.Constant, bits: int) -> str | None:
    """Return why an initializer stays sparse, or None."""
    sparse = constant._values.tensor
    values, count = onnx.numpy_helper.to_array(sparse.values), prod(sparse.dims)
    if values.dtype.name not in FLOAT_NAMES:
        return f"{constant.name} holds {values.dtype}, no floats"
    if count * values.dtype.itemsize < SMALLEST_BYTES:
        return f"{constant.name} has {count} values: too few for codes"
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > LARGEST_MAGNITUDE:
        return f"{constant.name} holds NaN, infinity or a mask"
    # Scales take about as much as one more bit.
    coded, size = count * (bits + 1) // BITS, sparse_bytes(sparse)
    return f"{constant.name} takes {size} bytes sparse, {coded} as codes" if size <= coded else None
