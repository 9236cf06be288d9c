"""Attention as exporters write it of MatMul, Softmax and MatMul between the splitting and the joining of heads."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from ..graph.shapes import ONE, Shapes, Size
from ..graph.walk import is_standard
from ..report import Skip
from .region import IsOutput
from .scores import Mask, Scores, factor, is_plain, match_scores, plain

# Between [batch, tokens, heads, width] and [batch, heads, tokens, width].
SPLIT = (0, 2, 1, 3)


@dataclass(frozen=True)
class Heads:
    """A tensor with heads.

    Attributes:
        tensor: [batch, tokens, heads, width] where split, [batch, heads, tokens, width] otherwise.
        shape: its sizes.
        split: True where a Transpose of the heads is left out.
    """

    tensor: gs.Tensor
    shape: tuple[Size, ...]
    split: bool

    @property
    def batch(self) -> Size:
        """The number of samples."""
        return self.shape[0]

    @property
    def heads(self) -> int | None:
        """The number of heads, where it is known."""
        return self.shape[2 if self.split else 1].static

    @property
    def tokens(self) -> Size:
        """The number of tokens."""
        return self.shape[1 if self.split else 2]

    @property
    def width(self) -> int | None:
        """The width of a head, where it is known."""
        return self.shape[3].static


@dataclass(frozen=True)
class Attention:
    """Softmax(scale * query @ key^T + masks) @ value, joined to [batch, tokens, heads, width].

    Attributes:
        node: the product with the value.
        output: its result, transposed to [batch, tokens, heads, width], where that is all that is made of it.
        query, key, value: what is multiplied; heads of the query, side by side, may share one of key and value.
        scale: factor of the scores.
        masks: in the order in which they are applied.
        zero_nan: rows of NaN count as zeros.
    """

    node: gs.Node
    output: gs.Variable | None
    query: Heads
    key: Heads
    value: Heads
    scale: float
    masks: tuple[Mask, ...]
    zero_nan: bool

    @property
    def in_rows(self) -> bool:
        """Tell whether all of it can be done on rows, [batch, tokens, heads * width], as layers give and take them."""
        split = self.query.split and self.key.split and self.value.split
        return split and None not in (self.query.heads, self.key.heads) and self.output is not None


def match_attention(node: gs.Node, shapes: Shapes, opset: int, is_output: IsOutput) -> Attention | Skip | None:
    """Return the attention whose product with the value is `node`, why it is none that can be rewritten, or None."""
    if node.op != "MatMul" or not is_standard(node):
        return None
    scores = match_scores(node, shapes, opset, is_output)
    if not isinstance(scores, Scores):
        return scores
    left, right = (_scaled(tensor, scores, shapes) for tensor in scores.product.inputs)
    key = _last_two_swapped(right, shapes)
    parts = (
        _part(left, shapes),
        _heads(_transposed(right, 0, 2, 3, 1), shapes, split=True)
        or (_part(_unrepeated(_scaled(key, scores, shapes), shapes), shapes) if key is not None else None),
        _part(_unrepeated(plain(node.inputs[1]), shapes), shapes),
    )
    query, keys, value = parts
    if query is None or keys is None or value is None:
        unknown = [name for name, part in zip(("query", "key", "value"), parts, strict=True) if part is None]
        return Skip(f"nothing is known of the shape of its {' and '.join(unknown)}")
    output = _joined(node, is_output)
    return _misfit(query, keys, value) or Attention(
        node, output, query, keys, value, scores.scale, scores.masks, scores.zero_nan
    )


def _joined(node: gs.Node, is_output: IsOutput) -> gs.Variable | None:
    """Return the product with the value as [batch, tokens, heads, width], where that is all that is made of it."""
    tensor = node.outputs[0]
    while len(tensor.outputs) == 1 and not is_output(tensor):
        reader = tensor.outputs[0]
        if reader.op == "Transpose":
            return reader.outputs[0] if tuple(reader.attrs.get("perm", ())) == SPLIT else None
        if not is_plain(reader) or reader.op == "Cast":
            return None
        tensor = reader.outputs[0]
    return None


def _scaled(tensor: gs.Tensor, scores: Scores, shapes: Shapes) -> gs.Tensor:
    """Return a tensor without the numbers that it is multiplied with, which go to the scale of the scores."""
    while True:
        tensor = plain(tensor)
        scalar = factor(tensor.inputs[0], shapes) if tensor.inputs else None
        if scalar is None:
            return tensor
        tensor, number = scalar
        scores.scale *= number


def _unrepeated(tensor: gs.Tensor, shapes: Shapes) -> gs.Tensor:
    """Return [b, heads, t, d] of what has each head several times side by side, [b, heads * times, t, d]."""
    nodes: list[gs.Node] = []
    for op in ("Reshape", "Expand", "Unsqueeze"):
        maker = nodes[-1].inputs[0] if nodes else tensor
        if not maker.inputs or maker.inputs[0].op != op:
            return tensor
        nodes.append(maker.inputs[0])
    apart, once = nodes[-1].outputs[0], nodes[-1].inputs[0]
    known = [shapes.shape(each) for each in (once, apart, nodes[1].outputs[0], tensor)]
    if None in known or [len(each or ()) for each in known] != [4, 5, 5, 4]:
        return tensor
    (b, heads, t, d), one, wide, whole = (each or () for each in known)
    times = wide[2]
    fits = one == (b, heads, ONE, t, d) and wide == (b, heads, times, t, d) and whole == (b, heads * times, t, d)
    return plain(once) if fits else tensor


def _transposed(tensor: gs.Tensor | None, *perm: int) -> gs.Tensor | None:
    maker = tensor.inputs[0] if tensor is not None and tensor.inputs else None
    if maker is None or maker.op != "Transpose" or tuple(maker.attrs.get("perm", ())) != perm:
        return None
    found: gs.Tensor = maker.inputs[0]
    return found


def _heads(tensor: gs.Tensor | None, shapes: Shapes, split: bool) -> Heads | None:
    shape = shapes.shape(tensor) if tensor is not None else None
    return Heads(tensor, shape, split) if shape is not None and len(shape) == len(SPLIT) else None


def _split(tensor: gs.Tensor | None, shapes: Shapes) -> Heads | None:
    return _heads(_transposed(tensor, *SPLIT), shapes, split=True)


def _part(tensor: gs.Tensor, shapes: Shapes) -> Heads | None:
    return _split(tensor, shapes) or _heads(tensor, shapes, split=False)


def _last_two_swapped(tensor: gs.Tensor, shapes: Shapes) -> gs.Tensor | None:
    """Return k [batch, heads, tokens, width] of what multiplies the query, by Transpose or by Transpose of matrices."""
    swapped = _transposed(tensor, 0, 1, 3, 2)
    if swapped is not None:
        return swapped
    maker = tensor.inputs[0] if tensor.inputs else None
    flat = _transposed(maker.inputs[0], 0, 2, 1) if maker is not None and maker.op == "Reshape" else None
    before = flat.inputs[0] if flat is not None and flat.inputs else None
    if flat is None or before is None or before.op != "Reshape":
        return None
    inner, outer, k = shapes.shape(flat), shapes.shape(tensor), shapes.shape(before.inputs[0])
    if inner is None or outer is None or k is None or len(k) != len(SPLIT):
        return None
    fits = inner[1:] == k[2:] and outer == (k[0], k[1], k[3], k[2])
    return before.inputs[0] if fits else None


def _misfit(*parts: Heads) -> Skip | None:
    """Return why query, key and value do not fit together, or None."""
    query, key, value = (part.shape[2 if part.split else 1] for part in parts)
    grouped = query.static and key.static and query.static % key.static == 0
    if key != value or not (query == key or grouped):
        known = (str(part.heads or "?") for part in parts)
        return Skip(f"query, key and value have {', '.join(known)} heads")
    batches = {part.batch for part in parts}
    if ONE in batches and len(batches) > 1:
        return Skip("its query, key and value have batches of different sizes")
    return None
