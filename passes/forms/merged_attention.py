"""The runtime's own Attention, which holds the weights of query, key and value as one: products, masks and Softmax.

    Before: x [b, s, k], weight [k, q + k + v], bias, mask, past -- Attention -> [b, s, v], present
    After:  x -- MatMul(weight) -- Add(bias) -- Split -- Reshape, Transpose -- q @ k^T [b, h, s, t] -- Mul scale
            -- Add masks -- Softmax -- @ v -- Transpose, Reshape -> [b, s, v]

as exporters write it, so that all passes see a plain product and a plain attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.constants import resolve
from ..graph.editor import Emitter
from ..graph.shapes import rank
from ..graph.types import element_type
from ..lowerings.operators import reshape, split_last
from ..report import Skip
from .base import Writer, give, inputs_of, output_of

# What is added to scores that a mask hides, unless the node says otherwise.
HIDDEN = -10000.0
SMALLEST_BYTES = 4096
PRESENT = 1
HEADS, COLUMNS, JOINED = [0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]
ENDS, RAW, PER_QUERY = 1, 2, 3


@dataclass(frozen=True)
class _Merged:
    """One Attention: its inputs, sizes of query, key and value [3], and what hides scores."""

    node: gs.Node
    x: gs.Tensor
    weight: gs.Tensor
    bias: gs.Tensor | None
    mask: gs.Tensor | None
    past: gs.Tensor | None
    present: gs.Variable | None
    addend: gs.Tensor | None
    sizes: tuple[int, ...]
    heads: int
    scale: float
    causal: bool
    hidden: float
    dtype: np.dtype[Any]


def merged_attention(node: gs.Node) -> Writer | Skip:
    """Return the products, masks and Softmax that an Attention stands for."""
    x, weight, bias, mask, past, addend, length = inputs_of(node, 7)
    view = resolve(weight) if weight is not None else None
    if x is None or weight is None or view is None or not view.is_float or len(view.shape) != 2:
        return Skip("its weight is not a constant matrix of floats")
    if view.nbytes < SMALLEST_BYTES:
        return Skip(f"its weight has {view.nbytes} bytes, fewer than {SMALLEST_BYTES}: more operators would weigh more")
    attrs, heads = node.attrs, int(node.attrs["num_heads"])
    third = view.shape[1] // 3
    sizes = tuple(int(size) for size in attrs.get("qkv_hidden_sizes") or ()) or (third, third, third)
    refused = {
        "it rotates queries and keys": bool(attrs.get("do_rotary", 0)),
        "its cache is written in place": length is not None or bool(attrs.get("past_present_share_buffer", 0)),
        f"its heads, {sizes} of {heads}, are not of one width": sizes[0] != sizes[1] or any(s % heads for s in sizes),
    }
    reason = next((reason for reason, holds in refused.items() if holds), None) or _unknown_mask(mask, x)
    if reason:
        return Skip(reason)
    form = _Merged(
        node, x, weight, bias, mask, past, output_of(node, PRESENT), addend, sizes, heads,
        scale=float(attrs.get("scale") or 0) or 1 / math.sqrt(sizes[0] / heads),
        causal=bool(attrs.get("unidirectional", 0)),
        hidden=max(float(attrs.get("mask_filter_value", HIDDEN)), float(np.finfo(view.dtype).min)),
        dtype=np.dtype(view.dtype),
    )  # fmt: skip
    return lambda at: _write(at, form)


def _unknown_mask(mask: gs.Tensor | None, x: gs.Tensor) -> str | None:
    """Return why nothing is known of a mask, or None."""
    axes = None if mask is None else rank(mask)
    if mask is None or axes in (RAW, PER_QUERY):
        return None
    if axes != ENDS:
        return f"its mask {mask.name} has {axes if axes is not None else 'an unknown number of'} axes"
    made = mask.inputs[0].op if mask.inputs else ""
    same = bool(mask.shape and x.shape and mask.shape[0] == x.shape[0] and mask.shape[0] is not None)
    known = same or made in ("EmbedLayerNormalization", "ReduceSum")
    return None if known else f"whether its mask {mask.name} holds ends, or ends and starts of tokens, is not known"


def _write(at: Emitter, form: _Merged) -> None:
    node, dtype = form.node, form.dtype
    name = node.outputs[0].name
    y = at.op("MatMul", form.x, form.weight, name=f"{name}.qkv", dtype=dtype)
    if form.bias is not None:
        y = at.op("Add", y, form.bias, name=f"{name}.biased", dtype=dtype)
    parts = [at.variable(f"{name}.{letter}", dtype) for letter in "qkv"]
    split_last(at, y, parts, list(form.sizes))
    query, key, value = (reshape(at, x, (0, 0, form.heads, -1), f"{name}.apart") for x in parts)
    query, value = (_transpose(at, x, HEADS, f"{name}.heads") for x in (query, value))
    if form.past is None and form.present is None:
        columns = _transpose(at, key, COLUMNS, f"{name}.columns")
    else:
        key = _transpose(at, key, HEADS, f"{name}.heads")
        if form.past is not None:
            key, value = (_joined(at, form.past, n, x, name) for n, x in enumerate((key, value)))
        if form.present is not None:
            zero = at.constant(np.array([0], np.int64), "first_axis")
            both = [at.op("Unsqueeze", x, zero, name=f"{name}.cache", dtype=dtype) for x in (key, value)]
            give(at, form.present, "Concat", *both, axis=0)
        columns = _transpose(at, key, [0, 1, 3, 2], f"{name}.columns")
    scores = at.op("MatMul", query, columns, name=f"{name}.scores", dtype=dtype)
    scores = at.op("Mul", scores, at.constant(np.array(form.scale, dtype), "scale"), name=f"{name}.scaled", dtype=dtype)
    for mask in (_mask(at, form, columns), _causal(at, form, query, columns), form.addend):
        if mask is not None:
            scores = at.op("Add", scores, mask, name=f"{name}.masked", dtype=dtype)
    shares = at.op("Softmax", scores, name=f"{name}.shares", dtype=dtype, axis=-1)
    result = _transpose(at, at.op("MatMul", shares, value, name=f"{name}.seen", dtype=dtype), JOINED, f"{name}.tokens")
    at.deliver(reshape(at, result, (0, 0, form.sizes[2]), f"{name}.rows"), node)


def _transpose(at: Emitter, x: gs.Tensor, perm: list[int], name: str) -> gs.Variable:
    return at.op("Transpose", x, name=name, dtype=x.dtype, perm=perm)


def _joined(at: Emitter, past: gs.Tensor, number: int, new: gs.Tensor, name: str) -> gs.Variable:
    """Return past keys or values with the new ones behind them, [b, h, t, d]."""
    index = at.constant(np.array(number, np.int64), "which")
    old = at.op("Gather", past, index, name=f"{name}.past", dtype=new.dtype, axis=0)
    return at.op("Concat", old, new, name=f"{name}.all", dtype=new.dtype, axis=2)


def _mask(at: Emitter, form: _Merged, columns: gs.Tensor) -> gs.Variable | None:
    """Return what hides padding, [b, 1, 1 or s, t]."""
    if form.mask is None:
        return None
    kind = np.dtype(element_type(form.mask) or "int32")
    axes = rank(form.mask)
    if axes == ENDS:
        zero, one = (at.constant(np.array(n, np.int32), "number") for n in (0, 1))
        count = _size(at, columns, 3, scalar=True)
        count = at.op("Cast", count, name="tokens.int32", dtype=np.int32, to=6)
        places = at.op("Range", zero, count, one, name="places", dtype=np.int32)
        ends = at.op("Unsqueeze", form.mask, at.constant(np.array([1], np.int64), "axes"), name="ends", dtype=np.int32)
        seen = at.op("Less", places, ends, name="seen", dtype=np.bool_)
    else:
        seen = at.op("Greater", form.mask, at.constant(np.array(0, kind), "number"), name="seen", dtype=np.bool_)
    shown, hidden = (at.constant(np.array(n, form.dtype), text) for n, text in ((0, "shown"), (form.hidden, "hidden")))
    mask = at.op("Where", seen, shown, hidden, name="padding", dtype=form.dtype)
    wanted = at.constant(np.array([1] if axes == PER_QUERY else [1, 2], np.int64), "axes")
    return at.op("Unsqueeze", mask, wanted, name="padding.whole", dtype=form.dtype)


def _causal(at: Emitter, form: _Merged, query: gs.Tensor, columns: gs.Tensor) -> gs.Variable | None:
    """Return what hides later tokens, [s, t]: the queries are the last of the keys."""
    if not form.causal:
        return None
    rows, keys = _size(at, query, 2), _size(at, columns, 3)
    shape = at.op("Concat", rows, keys, name="scores.shape", dtype=np.int64, axis=0)
    hidden = at.constant(np.array(np.finfo(form.dtype).min, form.dtype), "later")
    low = at.op("Expand", hidden, shape, name="later.all", dtype=form.dtype)
    first = at.op("Sub", keys, rows, name="past", dtype=np.int64)
    one = at.constant(np.array([1], np.int64), "one")
    diagonal = at.op("Add", first, one, name="diagonal", dtype=np.int64)
    return at.op("Trilu", low, diagonal, name="causal", dtype=form.dtype, upper=1)


def _size(at: Emitter, x: gs.Tensor, axis: int, scalar: bool = False) -> gs.Variable:
    index = at.constant(np.array(axis if scalar else [axis], np.int64), "axis")
    shape = at.op("Shape", x, name=f"{x.name}.shape", dtype=np.int64)
    return at.op("Gather", shape, index, name=f"{x.name}.size", dtype=np.int64, axis=0)
