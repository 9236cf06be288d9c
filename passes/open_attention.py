"""Attention as one node, opened up into products, masks and Softmax, which other passes compute in integers.

    Before: q [b, s, h * d], k [b, l, h * d], v [b, l, h * e] -- Attention, MultiHeadAttention -> [b, s, h * e]
    After:  q, k, v -- Reshape, Transpose -- q * scale @ k^T [b, h, s, l] -- Add masks -- Softmax
            -- @ v [b, h, s, e] -- Transpose, Reshape -> [b, s, h * e]

The standard operator also takes heads that are split already, [b, h, s, d], and gives them so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from .base import Rewrite
from .context import Context
from .graph.editor import Emitter
from .graph.types import element_type
from .lowerings.operators import BOOL, reshape
from .patterns.fused_attention import Fused, match_fused
from .report import Skip

# Trilu.
OPSET = 14
COMPUTES = True
HIDDEN = -math.inf


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Fused] | Skip | None:
    """Return the attention that a node computes."""
    form = match_fused(node, context.shapes)
    return Rewrite(scope, form) if isinstance(form, Fused) else form


def replace(context: Context, matches: list[Rewrite[Fused]]) -> Skip | None:
    """Write one attention as operators."""
    form = matches[0].form
    at, name = context.editor.before(matches[0].scope, form.node), f"opened{context.report.replaced}"
    dtype = np.dtype(form.dtype)
    query, key, value = (_heads(at, form, part, f"{name}.{'qkv'[part]}") for part in range(3))
    columns = at.op("Transpose", key, name=f"{name}.columns", dtype=dtype, perm=[0, 1, 3, 2])
    scaled = at.op("Mul", query, at.constant(np.array(form.scale, dtype), "scale"), name=f"{name}.scaled", dtype=dtype)
    scores = at.op("MatMul", scaled, columns, name=f"{name}.scores", dtype=dtype)
    for mask in _masks(at, form, query, key, name):
        scores = at.op("Add", scores, mask, name=f"{name}.masked", dtype=dtype)
    shares = at.op("Softmax", scores, name=f"{name}.softmax", dtype=dtype, axis=-1)
    if form.zeros:
        unseen = at.op("IsNaN", shares, name=f"{name}.unseen", dtype=np.bool_)
        shares = at.op("Where", unseen, at.constant(np.array(0, dtype), "zero"), shares, name=f"{name}.p", dtype=dtype)
    y = at.op("MatMul", shares, value, name=f"{name}.result", dtype=dtype)
    if form.heads:
        y = at.op("Transpose", y, name=f"{name}.tokens", dtype=dtype, perm=[0, 2, 1, 3])
        y = reshape(at, y, (0, 0, -1), f"{name}.rows")
    at.deliver(y, form.node)
    return None


def _heads(at: Emitter, form: Fused, part: int, name: str) -> gs.Tensor:
    """Return query, key or value with heads first, [b, h, tokens, width]."""
    x, dtype = form.parts[part], np.dtype(form.dtype)
    if form.biases:
        bias = at.constant(form.biases[part].astype(dtype), f"{name}.bias")
        x = at.op("Add", x, bias, name=f"{name}.biased", dtype=dtype)
    if not form.heads:
        return x
    apart = reshape(at, x, (0, 0, form.heads, -1), f"{name}.apart")
    return at.op("Transpose", apart, name=f"{name}.heads", dtype=dtype, perm=[0, 2, 1, 3])


def _masks(at: Emitter, form: Fused, query: gs.Tensor, key: gs.Tensor, name: str) -> Iterator[gs.Tensor]:
    """Yield what is added to the scores."""
    dtype = np.dtype(form.dtype)
    shown = at.constant(np.array(0, dtype), "shown")
    if form.causal:
        shape = at.op("Concat", *(_tokens(at, x, name) for x in (query, key)), name=f"{name}.sizes", axis=0)
        low = at.op("Expand", at.constant(np.array(HIDDEN, dtype), "hidden"), shape, name=f"{name}.low", dtype=dtype)
        one = at.constant(np.array(1, np.int64), "diagonal")
        yield at.op("Trilu", low, one, name=f"{name}.causal", dtype=dtype, upper=1)
    if form.padding is not None:
        seen = at.op("Cast", form.padding, name=f"{name}.no_padding", dtype=np.bool_, to=BOOL)
        hidden = at.constant(np.array(form.hidden, dtype), "padding")
        flat = at.op("Where", seen, shown, hidden, name=f"{name}.padding_row", dtype=dtype)
        axes = at.constant(np.array([1, 2], np.int64), "axes")
        yield at.op("Unsqueeze", flat, axes, name=f"{name}.padding", dtype=dtype)
    if form.mask is not None and element_type(form.mask) == "bool":
        hidden = at.constant(np.array(HIDDEN, dtype), "hidden")
        yield at.op("Where", form.mask, shown, hidden, name=f"{name}.mask", dtype=dtype)
    elif form.mask is not None:
        yield form.mask


def _tokens(at: Emitter, x: gs.Tensor, name: str) -> gs.Variable:
    """Return the number of tokens of [b, h, tokens, width], [1]."""
    axis = at.constant(np.array([2], np.int64), "tokens_axis")
    shape = at.op("Shape", x, name=f"{name}.shape", dtype=np.int64)
    return at.op("Gather", shape, axis, name=f"{name}.tokens", dtype=np.int64, axis=0)
