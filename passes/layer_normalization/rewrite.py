"""Layer normalization and its root-mean-square kin: statistics from block codes in integers, scale and bias as codes.

    Before: x [..., k] (+ residual) -- LayerNormalization, in any form that exporters write -> [..., k]
    After:  (x -- Add residual) -- BlockLayerNormalization(scale, bias) -> [..., k]

Scales and biases of all normalizations of one width are stored as one matrix and decoded at load:

    codes [k, vectors] -- decoded -> [vectors, k] -- Split -> scale, bias, scale, bias, ... [1, k]
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace as with_changes

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..base import Rewrite
from ..channels import even_large_rows
from ..context import Context
from ..formats.block import BlockFormat
from ..formats.encode import encode
from ..formats.numbers import half_holds
from ..graph.constants import FLOATS, constant_bytes, resolve
from ..graph.editor import Emitter
from ..graph.features import OPSET_INT4
from ..lowerings.operators import FLOAT
from ..lowerings.stored import store_codes, store_half
from ..report import TOGETHER, Skip, TensorReport
from ..written import BLOCK_SIZE, OTHER_BITS
from .form import Normalization, match_normalization
from .function import BY_FORM, WIDEST, Rows

OPSET = OPSET_INT4
COMPUTES = True


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Normalization] | Skip | None:
    """Return the normalization that ends in a node."""
    form = match_normalization(node, context.is_output)
    if not isinstance(form, Normalization):
        return form
    if resolve(form.x) is not None:
        return Skip("its input is a constant: the session folds it")
    if form.dtype not in FLOATS or form.output_dtype not in FLOATS:
        return Skip(f"its type is {form.dtype or 'not known'}, not a float")
    if not 0 < form.width <= WIDEST:
        return Skip(f"its rows have {form.width} values: sums are exact up to {WIDEST}")
    if not all(np.isfinite(vector).all() for vector in _vectors(form)):
        return Skip("its scale or bias holds NaN or infinity")
    return Rewrite(scope, form)


def groups(matches: list[Rewrite[Normalization]]) -> list[list[Rewrite[Normalization]]]:
    """Normalizations of one width keep their scales and biases together."""
    widths: defaultdict[int, list[Rewrite[Normalization]]] = defaultdict(list)
    for rewrite in matches:
        widths[rewrite.form.width].append(rewrite)
    return list(widths.values())


def replace(context: Context, matches: list[Rewrite[Normalization]]) -> Skip | None:
    """Rewrite the normalizations of one width."""
    forms = [rewrite.form for rewrite in matches]
    vectors = _store(context, forms)
    for number, rewrite in enumerate(matches):
        form = rewrite.form
        at, name = context.editor.before(rewrite.scope, form.node), f"norm{context.report.replaced + number}"
        x = context.as_float(at, _add_up(at, form, name), form.dtype or "float32")
        rows = Rows(form.width, context.options.block_size or BLOCK_SIZE, form.epsilon, form.centered)
        function = BY_FORM[form.centered, form.bias is not None, rows.padding > 0]
        inputs = (x, *(vectors[_key(vector)] for vector in _vectors(form)))
        (y,) = at.call(function, *inputs, name=name, node=form.node.name, attrs=rows.attributes)
        at.deliver(at.as_type(y, form.output_dtype or "float32", name), form.node)
    return None


def _vectors(form: Normalization) -> list[NDArray[np.float64]]:
    return [form.scale] if form.bias is None else [form.scale, form.bias]


def _key(vector: NDArray[np.float64]) -> bytes:
    return vector.astype(np.float32).tobytes()


def _store(context: Context, forms: list[Normalization]) -> dict[bytes, gs.Variable]:
    """Store the scales and biases as codes, equal ones once, and return them decoded, [1, k] each, by `_key`."""
    distinct = {_key(vector): vector for form in forms for vector in _vectors(form)}
    matrix = np.stack(list(distinct.values()), axis=1).astype(np.float32)
    width, count = matrix.shape
    sources = {id(source): source for form in forms for source in form.sources}
    fine = context.options.scales == "fine"
    fmt = BlockFormat.fine(OTHER_BITS, BLOCK_SIZE) if fine else BlockFormat.shifts_only(OTHER_BITS, BLOCK_SIZE)
    tensor = encode(matrix, fmt, context.options.workers)
    load, name = context.editor.at_load(), f"norms{len(context.report.tensors)}"
    codes = TensorReport(
        name=TOGETHER.join(source.name for source in sources.values()),
        shape=(width, count),
        bits=OTHER_BITS,
        block_size=BLOCK_SIZE,
        lowering="stored",
        bytes_before=sum(map(constant_bytes, sources.values())),
        bytes_after=0,
        sqnr_db=tensor.sqnr_db,
        op="LayerNormalization",
    )
    restored: gs.Tensor
    # The codes of a block would leave nothing of the channels beside a large one.
    if even_large_rows(matrix) is None:
        restored, size = store_codes(load, tensor, (count, width), FLOAT, name)
        context.report.tensors.append(with_changes(codes, bytes_after=size))
    elif half_holds(matrix, each=False):
        restored, size = store_half(load, matrix.T, FLOAT, name)
        context.report.tensors.append(with_changes(codes, bits=16, block_size=0, lowering="half", bytes_after=size))
    else:
        restored = load.exact(matrix.T, name)
    outputs = [context.editor.variable(f"{name}.{number}", np.float32) for number in range(count)]
    if count > 1:
        load.node("Split", [restored], outputs, axis=0, num_outputs=count)
    return dict(zip(distinct, outputs if count > 1 else [restored], strict=True))


def _add_up(at: Emitter, form: Normalization, name: str) -> gs.Tensor:
    """Write x + residual (+ bias), under the name of the output that holds the sum where there is one."""
    x = form.x
    for number, addend in enumerate(form.addends, 1):
        total = form.total if number == len(form.addends) else None
        if total is not None:
            total.inputs.clear()
        x = at.op("Add", x, addend, name=f"{name}.sum{number}", output=total, dtype=x.dtype)
    return x
