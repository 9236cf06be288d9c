"""Attention as one node: the standard operator of opset 23, and the runtime's own MultiHeadAttention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..graph.constants import FLOATS, resolve
from ..graph.shapes import ONE, Shape, Shapes
from ..graph.types import element_type
from ..graph.walk import is_standard
from ..report import Skip

# Axes of [batch, tokens, heads * width] and of [batch, heads, tokens, width].
ROWS, HEADS_FIRST = 3, 4
# What MultiHeadAttention adds to the scores of padding, unless it says otherwise.
PADDING = -10000.0


@dataclass(frozen=True)
class Fused:
    """Softmax(scale * query @ key^T + masks) @ value, in one node.

    Attributes:
        node: the node.
        parts: query, key and value, all of them in rows or all with heads first.
        biases: what is added to each of them, or none.
        heads: number of heads in rows; 0 where heads come first.
        scale: factor of the scores.
        causal: True where no token sees a later one.
        mask: bool (True is seen) or numbers to add, broadcast to [b, h, s, l]; or None.
        padding: integers [b, l], 0 where a token is hidden, or None.
        hidden: number that hides padding.
        zeros: True where a row of which nothing is seen gives zeros.
        dtype: name of the numpy type.
    """

    node: gs.Node
    parts: tuple[gs.Tensor, ...]
    biases: tuple[NDArray[np.floating], ...]
    heads: int
    scale: float
    causal: bool
    mask: gs.Tensor | None
    padding: gs.Tensor | None
    hidden: float
    zeros: bool
    dtype: str


def match_fused(node: gs.Node, shapes: Shapes) -> Fused | Skip | None:
    """Return the attention that a node computes, why it cannot be written as operators, or None."""
    if node.op == "Attention" and is_standard(node):
        form = _standard(node, shapes)
    elif node.op == "MultiHeadAttention" and node.domain == "com.microsoft":
        form = _multi_head(node, shapes)
    else:
        return None
    if isinstance(form, Fused) and form.dtype not in FLOATS:
        form = f"its type is {form.dtype or 'not known'}, not a float"
    return Skip(f"{node.op} is not opened up: {form}") if isinstance(form, str) else form


def _standard(node: gs.Node, shapes: Shapes) -> Fused | str:
    query, key, value, mask, past_key, past_value, lengths = _inputs(node, 7)
    q, k = _shape(query, shapes), _shape(key, shapes)
    if query is None or key is None or value is None or len(q) != len(k) or len(q) not in (ROWS, HEADS_FIRST):
        return "nothing is known of the shapes of its query and key"
    names = ("q_num_heads", "kv_num_heads")
    counts = (q[1].static, k[1].static) if len(q) == HEADS_FIRST else tuple(node.attrs.get(name) for name in names)
    seen = _shape(mask, shapes)
    refused = {
        "it joins keys and values with earlier ones": past_key is not None or past_value is not None,
        "it takes the number of keys that are no padding": lengths is not None,
        "it gives more than its result": _gives_more(node),
        f"it caps scores at {node.attrs.get('softcap', 0):g}": bool(node.attrs.get("softcap", 0)),
        "its heads are {} of queries, {} of keys".format(*counts): counts[0] is None or counts[0] != counts[1],
        "its mask may cover some keys only": mask is not None and (not seen or seen[-1] not in (k[-2], ONE)),
    }
    scale = node.attrs.get("scale") or _scale(q, counts[0] if len(q) == ROWS else 1)
    return _first(refused, scale) or Fused(
        node=node,
        parts=(query, key, value),
        biases=(),
        heads=int(counts[0] or 0) if len(q) == ROWS else 0,
        scale=float(scale or 0),
        causal=bool(node.attrs.get("is_causal", 0)),
        mask=mask,
        padding=None,
        hidden=PADDING,
        zeros=mask is not None,
        dtype=element_type(query) or "",
    )


def _multi_head(node: gs.Node, shapes: Shapes) -> Fused | str:
    query, key, value, bias, padding, mask, *more = _inputs(node, 10)
    parts = [part for part in (query, key, value) if part is not None]
    sizes, heads = [_shape(part, shapes) for part in parts], int(node.attrs["num_heads"])
    if [len(size) for size in sizes] != [ROWS] * 3:
        return "its query, key and value are not three tensors [batch, tokens, width]"
    biases = () if bias is None else _parts(bias, sizes)
    refused = {
        "it joins keys and values with earlier ones": any(tensor is not None for tensor in more),
        "it gives more than its result": _gives_more(node),
        "its bias is computed": bias is not None and not biases,
        "its padding mask has no entry a token": padding is not None and len(_shape(padding, shapes)) != 2,
    }
    scale = node.attrs.get("scale") or _scale(sizes[0], heads)
    return _first(refused, scale) or Fused(
        node=node,
        parts=tuple(parts),
        biases=biases,
        heads=heads,
        scale=float(scale or 0),
        causal=bool(node.attrs.get("unidirectional", 0)),
        mask=mask,
        padding=padding,
        hidden=float(node.attrs.get("mask_filter_value", PADDING)),
        zeros=False,
        dtype=element_type(parts[0]) or "",
    )


def _inputs(node: gs.Node, count: int) -> list[gs.Tensor | None]:
    given = [tensor if tensor.name else None for tensor in node.inputs]
    return given + [None] * (count - len(given))


def _shape(tensor: gs.Tensor | None, shapes: Shapes) -> Shape:
    """Return the sizes of a tensor's axes, none where they are not known."""
    return (None if tensor is None else shapes.shape(tensor)) or ()


def _gives_more(node: gs.Node) -> bool:
    return any(output.name for output in node.outputs[1:])


def _scale(query: Shape, heads: int | None) -> float | None:
    width = query[-1].static
    return None if width is None or not heads else 1 / math.sqrt(width / heads)


def _first(refused: dict[str, bool], scale: float | None) -> str | None:
    """Return the first reason that holds, or None."""
    reasons = refused | {"nothing is known of the width of its heads": scale is None}
    return next((reason for reason, holds in reasons.items() if holds), None)


def _parts(bias: gs.Tensor, sizes: list[Shape]) -> tuple[NDArray[np.floating], ...]:
    """Return the parts of a constant bias that belong to query, key and value; none where they are not known."""
    view, widths = resolve(bias), [size[-1].static for size in sizes]
    if view is None or None in widths:
        return ()
    ends = np.cumsum([width or 0 for width in widths])
    return tuple(np.split(view.values().reshape(-1), ends[:-1])) if view.shape == (int(ends[-1]),) else ()
