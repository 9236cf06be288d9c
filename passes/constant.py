"""Float constants that no other pass takes: codes or float16 in the file, floats once the session is made.

Before: constant float [*shape] -- any reader
After:  what the first of these rules says -- decoded at load -> float [*shape] -- the same readers

1. What angles, steps or sums of a few products are made of: as is.
2. Few different values (masks, position biases, one-hot rows), whole numbers: indices or int16, bit for bit.
3. What rises or falls at every step: positions or frequencies, as is.
4. Small ones, and what is divided by or rooted: float16, where it holds them to half an ulp.
5. A mask of one huge value in the same constant as others: the mask as in 2, the others as in 6, and their sum.
6. Codes of 8 bits in blocks with scales (the requested width for the weight of a Conv and its kin). Each value comes
   back within WORST of the peak of its row and of its column, whichever is smaller; where no order of blocks gives
   that, as float16, or as is.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as with_changes

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .context import Context
from .formats.numbers import is_ramp, is_whole, split_mask
from .graph.constants import ConstantView, reader_of, resolve
from .graph.linear import Linear, match_linear
from .graph.new import redirect
from .graph.operators import Trait, traits_of
from .graph.walk import walk
from .matmul import is_short
from .report import Skip, TensorReport
from .written import Writer, Written

# From here on codes, below it float16; under the smallest the Cast weighs more than it saves.
SMALLEST_CODED_BYTES, SMALLEST_HALF_BYTES = 4096, 256
# Larger magnitudes are masks (the lowest float, 1e9, ...), not numbers that a scale can stand for.
LARGEST_MAGNITUDE = 65504.0
# What is small beside its neighbours counts here, too.
PRECISE_READERS = frozenset({"BatchNormalization", "Div", "Log", "Pow", "Reciprocal", "Sqrt"})
# What an error that is small beside a number goes through on its way to turns and steps, beside which it is not small.
CARRIERS = frozenset(
    {
        *("Add", "Cast", "Concat", "Div", "Expand", "Identity", "MatMul", "Mul", "Reshape", "Squeeze", "Sub"),
        *("Transpose", "Unsqueeze"),
    }
)
FURTHEST = 6


@dataclass(frozen=True)
class Constants:
    """A node and the constants, worth storing smaller, of which it is the first reader."""

    node: gs.Node
    constants: tuple[ConstantView, ...]


def find_kept(context: Context) -> dict[int, Skip]:
    """Return by their ids the constants that kept nodes read, perhaps through others."""
    kept = [(node, context.kept(node)) for _, node in walk(context.editor.graph)]
    views = [(resolve(tensor), skip) for node, skip in kept if skip for tensor in node.inputs]
    return {id(view.source): skip for view, skip in views if view is not None}


def prepare(graph: gs.Graph, context: Context) -> None:
    """Look at what kept nodes read before other passes rewrite the graph."""
    del graph
    context.found(find_kept)


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


RAMP = "is a ramp: positions or frequencies are kept exact"
NOT_FINITE = "holds NaN or infinity"


def _replace(context: Context, constant: ConstantView) -> str | None:
    """Store one constant; return why not."""
    source, readers = constant.source, list(constant.source.outputs)
    if kept := context.found(find_kept).get(id(source)):
        return f"{source.name} is read by a node {kept.reason}"
    if needed := _needed_exactly(source):
        return f"{source.name} {needed}"
    values = constant.values()
    writer = Writer(context.editor.at_load(), context.options, f"c{len(context.report.tensors)}")
    written = _write(context, writer, source, values)
    if isinstance(written, str):
        return f"{source.name} {written}"
    reader = reader_of(source)
    redirect(source, written.restored, readers)
    context.report.tensors.append(
        TensorReport(
            name=source.name,
            shape=tuple(values.shape),
            bits=written.bits,
            block_size=written.block_size,
            lowering=written.lowering,
            bytes_before=constant.nbytes,
            bytes_after=written.bytes,
            sqnr_db=written.sqnr_db,
            op=reader.op if reader else "",
            node=reader.name if reader else "",
        )
    )
    return None


def _write(context: Context, writer: Writer, source: gs.Constant, values: NDArray[np.floating]) -> Written | str:
    """Write a constant as the first rule says that fits, or return why it stays."""
    precise = any(reader.op in PRECISE_READERS for reader in source.outputs)
    if values.nbytes < SMALLEST_CODED_BYTES:
        return _small(writer, values, precise)
    weight = values.ndim > 1 and any(map(reads_weight, source.outputs))
    bits = context.options.bits_for.get(source.name, context.options.bits)
    whole = is_whole(values)
    exact = writer.table(values, writer.MOST_BITS if whole or not weight else bits) or writer.whole(values)
    if exact or whole:
        return exact or "holds whole numbers beyond 16 bits"
    if precise:
        return writer.half(values, each=True) or "is divided by or rooted"
    if weight:
        return _unfit(values) or writer.weight(values, bits)
    return _masked(writer, values)


def _small(writer: Writer, values: NDArray[np.floating], precise: bool) -> Written | str:
    if not np.isfinite(values).all():
        return NOT_FINITE
    if is_ramp(values):
        return RAMP
    return writer.half(values, each=precise or is_whole(values)) or "holds numbers that float16 does not"


def _masked(writer: Writer, values: NDArray[np.floating]) -> Written | str:
    """Write numbers, perhaps beside a mask."""
    if is_ramp(values):
        return RAMP
    masked = split_mask(values)
    rest = masked.rest if masked else values
    if unfit := _unfit(rest):
        return unfit
    written = writer.near(rest)
    if written is None:
        return "holds numbers of sizes that neither codes nor float16 stand for"
    if masked is None:
        return written
    mask = writer.table(np.where(masked.places, masked.value, values.dtype.type(0)), writer.MOST_BITS)
    assert mask is not None
    total = writer.load.op("Add", mask.restored, written.restored, name=f"{writer.name}.sum", dtype=values.dtype)
    return with_changes(written, restored=total, bytes=written.bytes + mask.bytes)


def _unfit(values: NDArray[np.floating]) -> str | None:
    """Return why no scale stands for values."""
    if not np.isfinite(values).all():
        return NOT_FINITE
    beyond = np.abs(values).max(initial=0) > LARGEST_MAGNITUDE
    return f"holds values beyond {LARGEST_MAGNITUDE:g}: a mask" if beyond else None


def _needed_exactly(source: gs.Constant) -> str | None:
    """Return what a constant is read by that its last digits matter to."""
    for node in source.outputs:
        linear = match_linear(node)
        if isinstance(linear, Linear) and linear.weight.source is source and is_short(linear):
            return f"is multiplied in sums of {linear.k}"
    turn = turned_by(source)
    return f"is what {turn} is taken of" if turn else None


def turned_by(tensor: gs.Tensor) -> str | None:
    """Return the operator that makes angles or steps of a tensor, at most FURTHEST operators further, or None."""
    new, seen = [(reader, FURTHEST) for reader in tensor.outputs], set()
    while new:
        node, left = new.pop()
        if Trait.TURNS in traits_of(node):
            return str(node.op)
        if node.op in CARRIERS and left and id(node) not in seen:
            seen.add(id(node))
            new += [(reader, left - 1) for output in node.outputs for reader in output.outputs]
    return None


def reads_weight(node: gs.Node) -> bool:
    """Tell whether a node's constant is a trained weight that averages many products: it bears the requested width."""
    return Trait.MULTIPLIES in traits_of(node) and not _is_quantized(node)


def _is_quantized(node: gs.Node) -> bool:
    """Tell whether a node comes with codes and scales of its own."""
    return Trait.CODES in traits_of(node)
