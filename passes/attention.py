"""Attention of products, masks and Softmax: one kernel of the runtime's, which keeps heads side by side.

    Before: q, k, v [b, s, h, d] -- Transpose -- q @ k^T [b, h, s, l] -- Mul scale -- Add mask -- Softmax
            -- @ v [b, h, s, d] -- Transpose -> [b, s, h, d]
    After:  q, k, v [b, s, h * d] -- Attention(mask [b or 1, h or 1, s, l]) -- Reshape -> [b, s, h, d]

Where one of them does not come from such a Transpose (keys of a cache, rotated queries), all go in, and the result
comes out, with their heads first: [b, h, s, d]. Keys and values that were repeated for heads of the query that share
them (Llama and its kin) go in once. Where a condition replaces scores with a low number, the number is
added where it did. A query that sees no key, one of padding that is, gets zeros instead of the mean of all values.
Attention is a standard operator from opset 23 on; below, nothing is rewritten: MultiHeadAttention, the runtime's own
before it, is no faster than what it replaces (measured on BERT, MiniLM, ViT and GPT-2 shapes).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from .base import Rewrite
from .context import Context
from .graph.attentions import make_call
from .graph.constants import load
from .graph.editor import Emitter
from .graph.shapes import ONE, Shape, Shapes, Size, broadcast
from .graph.types import element_type
from .graph.walk import walk
from .lowerings.operators import cast, reshape
from .patterns.attention import SPLIT, Attention, Heads, match_attention
from .patterns.scores import Mask
from .report import PassReport, Skip

# Passes whose integer forms take the place of what the kernel computes in float.
INTEGERS = frozenset({"activation_matmul", "softmax"})
# What makes rows of a width that the runtime knows from constants.
FOLLOWED = frozenset({"Add", "Gemm", "MatMul", "Split"})
# The opset of Attention, and what it stands for: the runtime's own of that name, too, once it is taken apart.
BEST_OPSET, BEST_FOR = 23, frozenset({"Attention", "Softmax"})


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Attention] | Skip | None:
    """Return the attention whose product with the value is a MatMul."""
    options, opset = context.options, context.editor.opset
    # Runtimes for which weights are in standard operators hardly know this one.
    if context.lowering.standard_only or options.operators & INTEGERS or opset < BEST_OPSET:
        return None
    form = match_attention(node, context.shapes, opset, context.is_output)
    if not isinstance(form, Attention):
        return form
    types = {element_type(part.tensor) for part in (form.query, form.key, form.value)}
    if types != {"float32"}:
        return Skip(f"its type is {', '.join(sorted(map(str, types)))}: the kernel computes in float32")
    return Rewrite(scope, form)


def finish(graph: gs.Graph, context: Context, _: list[PassReport]) -> None:
    """Let every Attention be a call, once no pass looks for the operator any more."""
    if context.lowering.standard_only:
        return
    for _, node in walk(graph):
        make_call(node, context.shapes)


def groups(matches: list[Rewrite[Attention]]) -> list[list[Rewrite[Attention]]]:
    """Return attentions that share their masks, brought to the same shape."""
    sharing: defaultdict[tuple[object, ...], list[Rewrite[Attention]]] = defaultdict(list)
    for number, rewrite in enumerate(matches):
        form = rewrite.form
        masks = tuple(mask.key for mask in form.masks)
        alone = () if masks else (number,)
        sharing[(id(rewrite.scope), masks, form.query.tokens, form.key.tokens, form.query.heads, *alone)].append(
            rewrite
        )
    return list(sharing.values())


def replace(context: Context, matches: list[Rewrite[Attention]]) -> Skip | None:
    """Rewrite attentions that share their masks."""
    shapes, first = context.shapes, matches[0]
    at = context.editor.before(first.scope, first.node)
    bias = _bias(at, first.form, shapes) if first.form.masks else None
    for number, rewrite in enumerate(matches):
        at, form = context.editor.before(rewrite.scope, rewrite.node), rewrite.form
        name = f"attention{context.report.replaced + number}"
        apart = (form.query, form.key, form.value)
        counts: dict[str, Any] = {"q_num_heads": form.query.heads, "kv_num_heads": form.key.heads}
        y = at.op(
            "Attention",
            *[_rows(at, part, shapes) if form.in_rows else _heads_first(at, part) for part in apart],
            *([] if bias is None else [bias]),
            name=name,
            dtype=np.float32,
            scale=form.scale,
            **(counts if form.in_rows else {}),
        )
        if form.zero_nan and not _is_finite(form.masks):
            zero = at.constant(np.array(0, np.float32), "zero")
            y = at.op("Where", at.op("IsNaN", y, name=f"{name}.nan"), zero, y, name=f"{name}.numbers")
        if form.in_rows:
            _deliver_rows(at, form, y, context)
        else:
            at.deliver(y, form.node)
    return None


def _rows(at: Emitter, part: Heads, shapes: Shapes) -> gs.Tensor:
    """Return [b, s, h * d] of heads [b, s, h, d] that are split.

    A runtime that does not know h * d takes it for 0 (ONNX Runtime 1.32): where it cannot follow, it is told.
    """
    maker, width = part.tensor.inputs[0] if part.tensor.inputs else None, part.shape[2] * part.shape[3]
    if maker is not None and maker.op == "Reshape":
        rows: gs.Tensor = maker.inputs[0]
        followed = bool(rows.inputs) and rows.inputs[0].op in FOLLOWED
        if shapes.shape(rows) == (part.batch, part.tokens, width) and (followed or not rows.inputs):
            return rows
    return reshape(at, part.tensor, (0, 0, width.static or -1), f"{part.tensor.name}.rows")


def _heads_first(at: Emitter, part: Heads) -> gs.Tensor:
    """Return [b, h, s, d]."""
    if not part.split:
        return part.tensor
    return at.op("Transpose", part.tensor, name=f"{part.tensor.name}.heads", perm=list(SPLIT))


def _deliver_rows(at: Emitter, form: Attention, y: gs.Variable, context: Context) -> None:
    """Let y [b, s, h * d] take the place of its Reshape, and [b, s, h, d] that of the transposed product."""
    query, width = form.query, form.value.shape[3]
    joined = (query.batch, query.tokens, query.shape[2] * width)
    assert form.output is not None
    readers = list(form.output.outputs)
    rows = [node for node in readers if node.op == "Reshape" and context.shapes.shape(node.outputs[0]) == joined]
    if rows:
        result = rows[0].outputs[0]
        at.deliver(y, rows[0])
        y = result
    if len(readers) > len(rows[:1]) or context.is_output(form.output):
        apart = reshape(at, y, (0, 0, query.heads or 0, form.value.width or -1), f"{form.output.name}.heads")
        at.deliver(apart, form.output.inputs[0])


def _bias(at: Emitter, form: Attention, shapes: Shapes) -> gs.Tensor:
    """Return the sum of the masks as the kernel takes it: [b or 1, h or 1, s, l]."""
    known: list[Shape | None] = [shapes.shape(mask.tensor) for mask in form.masks]
    addends = [_addend(at, mask, f"mask{number}") for number, mask in enumerate(form.masks)]
    total = addends[0]
    for addend in addends[1:]:
        total = at.op("Add", total, addend, name="masks", dtype=np.float32)
    fits = None not in known and _is_whole(broadcast(*[shape for shape in known if shape is not None]), form)
    whole = total if fits else at.op("Expand", total, _whole(at, form), name="mask.whole", dtype=np.float32)
    if shapes.shape(whole) is None:
        shapes.note(whole, (shapes.fresh(), shapes.fresh(), form.query.tokens, form.key.tokens))
    return whole


def _addend(at: Emitter, mask: Mask, name: str) -> gs.Tensor:
    tensor = mask.tensor if mask.to is None else cast(at, mask.tensor, mask.to, f"{name}.cast")
    if mask.fill is None:
        return tensor
    shown, hidden = (at.constant(np.array(v, np.float32), n) for v, n in ((0, "shown"), (mask.fill, "hidden")))
    choices = (hidden, shown) if mask.hides else (shown, hidden)
    return at.op("Where", tensor, *choices, name=name, dtype=np.float32)


def _is_whole(shape: Shape, form: Attention) -> bool:
    heads = shape[1].static if len(shape) == len(form.query.shape) else None
    whole = shape[-2:] == (form.query.tokens, form.key.tokens)
    return whole and heads in (1, form.query.heads) and shape[0] in (ONE, form.query.batch)


def _whole(at: Emitter, form: Attention) -> gs.Tensor:
    """Return the shape [1, 1, s, l] that a mask is expanded to."""
    sizes = [ONE, ONE, form.query.tokens, form.key.tokens]
    numbers = [size.static for size in sizes]
    if None not in numbers:
        return at.constant(np.array(numbers, np.int64), "mask.shape")
    one = at.constant(np.array([1, 1], np.int64), "ones")
    parts = [_tokens(at, part, size) for part, size in zip((form.query, form.key), sizes[2:], strict=True)]
    return at.op("Concat", one, *parts, name="mask.shape", dtype=np.int64, axis=0)


def _tokens(at: Emitter, part: Heads, size: Size) -> gs.Tensor:
    """Return the number of tokens of a part, [1]."""
    if size.static is not None:
        return at.constant(np.array([size.static], np.int64), "tokens")
    axis = at.constant(np.array([1 if part.split else 2], np.int64), "axis")
    return at.op("Gather", at.op("Shape", part.tensor, name="shape", dtype=np.int64), axis, name="tokens", axis=0)


def _is_finite(masks: tuple[Mask, ...]) -> bool:
    """Tell whether no row of scores can be minus infinity throughout: two low numbers may add up to it."""
    return not masks or (len(masks) == 1 and _has_finite(masks[0]))


def _has_finite(mask: Mask) -> bool:
    if mask.fill is not None:
        return bool(np.isfinite(mask.fill))
    tensor = mask.tensor
    while tensor.inputs and tensor.inputs[0].op in ("Cast", "Expand", "Identity", "Slice", "Unsqueeze"):
        tensor = tensor.inputs[0].inputs[0]
    choice = tensor.inputs[0] if tensor.inputs else None
    constants = [tensor] if choice is None or choice.op != "Where" else choice.inputs[1:]
    return all(isinstance(t, gs.Constant) and bool(np.isfinite(load(t)).all()) for t in constants)
