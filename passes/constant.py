"""Float constants that no other pass takes: codes or float16 in the file, floats once the session is made.

Before: constant float [*shape] -- any reader
After:  codes (8 bits; the requested width for the weight of a Conv and its kin), block scales
        -- decoded at load -> float [*shape] -- the same readers

Vectors and other small constants become float16 -- Cast at load, when float16 holds them to half an ulp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .context import Context
from .formats.block import BlockFormat
from .formats.encode import encode
from .graph.constants import ConstantView, resolve
from .graph.editor import redirect
from .lowerings.stored import store_codes, store_half
from .lowerings.unpack import opset_for
from .report import Skip, TensorReport

# Operators whose constant is a trained weight that averages many products: it bears the requested width.
WEIGHT_READERS = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})
# Other constants are added or multiplied and go straight to the result.
OTHER_BITS = 8
# Readers that come with codes and scales of their own.
QUANTIZED_READERS = frozenset(
    {
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QuantizeLinear",
    }
)
BLOCK_SIZE = 32
# Rows shorter than this would each carry a scale: the values are taken as one row.
SHORTEST_ROW = 64
# From here on codes, below it float16; under the smallest the Cast weighs more than it saves.
SMALLEST_CODED_BYTES, SMALLEST_HALF_BYTES = 4096, 256
# Larger magnitudes are masks (the lowest float, 1e9, ...), not numbers that a scale can stand for.
LARGEST_MAGNITUDE = 65504.0


@dataclass(frozen=True)
class Constants:
    """A node and the constants, worth storing smaller, of which it is the first reader."""

    node: gs.Node
    constants: tuple[ConstantView, ...]


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Constants | None:
    """Return the large float constants that nobody read before this node."""
    del scope
    first = [
        view
        for view in (resolve(tensor) for tensor in node.inputs if isinstance(tensor, gs.Constant))
        if view is not None
        and view.source.outputs[0] is node
        and view.is_float
        and view.nbytes >= (SMALLEST_HALF_BYTES if view.dtype == "float32" else SMALLEST_CODED_BYTES)
        and not context.is_output(view.source)
        and id(view.source) not in context.editor.exact
        and not any(_is_quantized(reader) for reader in view.source.outputs)
    ]
    return Constants(node, tuple(first)) if first else None


def replace(context: Context, matches: list[Constants]) -> Skip | None:
    """Store the constants of one node and let all their readers read the decoded ones."""
    reasons = [_replace(context, constant) for constant in matches[0].constants]
    return Skip("; ".join(filter(None, reasons))) if all(reasons) else None


def _replace(context: Context, constant: ConstantView) -> str | None:
    """Store one constant; return why not."""
    source, values = constant.source, constant.values()
    if kept := context.kept_constant(source):
        return f"{source.name} is read by a node kept by the pattern {kept!r}"
    if not np.isfinite(values).all():
        return f"{source.name} holds NaN or infinity"
    if np.abs(values).max(initial=0) > LARGEST_MAGNITUDE:
        return f"{source.name} holds values beyond {LARGEST_MAGNITUDE:g}: a mask"
    if values.size > 2 and (np.all(np.diff(values.reshape(-1)) > 0) or np.all(np.diff(values.reshape(-1)) < 0)):
        return f"{source.name} is a ramp: positions or frequencies are kept exact"
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(constant.dtype))
    load, readers, name = context.editor.at_load(), list(source.outputs), f"c{len(context.report.tensors)}"
    if values.nbytes < SMALLEST_CODED_BYTES:
        restored, size = store_half(load, values, to, name)
        bits, lowering, noise = 16, "half", float(np.square(values - values.astype(np.float16)).sum())
        signal = float(np.square(values).sum())
        sqnr = 10 * math.log10(signal / noise) if noise and signal else math.inf
    else:
        weight = any(reader.op in WEIGHT_READERS for reader in readers) and values.ndim > 1
        bits = context.options.bits_for.get(source.name, context.options.bits if weight else OTHER_BITS)
        lowering = "stored"
        if context.editor.opset < opset_for(bits):
            bits = OTHER_BITS
        fine = context.options.scales == "fine"
        fmt = BlockFormat.fine(bits, BLOCK_SIZE) if fine else BlockFormat.shifts_only(bits, BLOCK_SIZE)
        columns = None if weight else as_columns(values)
        tensor = encode(as_rows(values).T if columns is None else columns, fmt, context.options.workers)
        restored, size = store_codes(load, tensor, values.shape, to, name, by_columns=columns is not None)
        sqnr = tensor.sqnr_db
    redirect(source, restored, readers)
    context.report.tensors.append(
        TensorReport(
            name=source.name,
            shape=tuple(values.shape),
            bits=bits,
            block_size=BLOCK_SIZE if lowering == "stored" else 0,
            lowering=lowering,
            bytes_before=constant.nbytes,
            bytes_after=size,
            sqnr_db=sqnr,
        )
    )
    return None


def as_rows(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the values as [n, k]: an output channel or a last axis a row, or all in one row when those are short."""
    for rows in (values.reshape(len(values), -1), values.reshape(-1, values.shape[-1])):
        if values.ndim > 1 and rows.shape[1] >= SHORTEST_ROW:
            return rows
    return values.reshape(1, -1)


def as_columns(values: NDArray[np.floating]) -> NDArray[np.floating] | None:
    """Return the values as [k, n], a place on the last axis a column, or None where columns are short.

    Channels of a table of positions may differ in size by hundreds: a scale for neighbours in one row, which the
    largest of them sets, leaves nothing of the small ones.
    """
    if values.ndim < 2 or values.size < SHORTEST_ROW * values.shape[-1]:
        return None
    return values.reshape(-1, values.shape[-1])


def _is_quantized(node: gs.Node) -> bool:
    return node.op in QUANTIZED_READERS or node.op.startswith("QLinear")
