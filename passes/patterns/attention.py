"""Attention as exporters write it of MatMul, Softmax and MatMul between the splitting and the joining of heads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..graph.constants import FLOATS
from ..graph.shapes import Shapes
from ..graph.sizes import Size
from ..report import Skip
from .region import IsOutput, is_standard
from .softmax import OPSET_ONE_AXIS, Softmax, match_softmax

# Between [batch, tokens, heads, width] and [batch, heads, tokens, width].
SPLIT = (0, 2, 1, 3)
# A number so low that what is added to it is lost in float32, for scores up to 32.
LOW = -1e9


@dataclass(frozen=True)
class Mask:
    """What is added to the scores, or a condition that says where scores are replaced.

    Attributes:
        tensor: the addend or the condition; what expands it to the scores is left out.
        fill: what scores are replaced with, None for an addend.
        hides: with a fill: True where the condition hides a score, False where it shows one.
        to: element type to cast the tensor to, or None.
    """

    tensor: gs.Tensor
    fill: float | None = None
    hides: bool = False
    to: int | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for masks that are the same."""
        return (id(self.tensor), self.fill, self.hides, self.to)


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
        output: its result, transposed.
        query, key, value: query is split; key and value both are, or both are not.
        scale: factor of the scores.
        masks: in the order in which they are applied.
        zero_nan: rows of NaN count as zeros.
    """

    node: gs.Node
    output: gs.Variable
    query: Heads
    key: Heads
    value: Heads
    scale: float
    masks: tuple[Mask, ...]
    zero_nan: bool


def match_attention(node: gs.Node, shapes: Shapes, opset: int, is_output: IsOutput) -> Attention | Skip | None:
    """Return the attention whose product with the value is `node`, why it is none that can be rewritten, or None."""
    if node.op != "MatMul" or not is_standard(node):
        return None
    inner: list[gs.Tensor] = []
    weights, zero_nan = _weights(node.inputs[0], inner)
    inner.append(weights)
    x = _softmax_input(weights, opset, is_output)
    if not isinstance(x, gs.Tensor):
        return x
    scores = _scores(x, shapes, inner)
    if not isinstance(scores, _Scores):
        return scores
    leak = _leak(inner, node, scores, is_output)
    if leak:
        return Skip(leak)
    output = _joined(node, is_output)
    if output is None:
        return Skip("its heads are not put side by side by one Transpose of axes 1 and 2")
    left, right = (_scaled(tensor, scores, shapes) for tensor in scores.product.inputs)
    query = _split(left, shapes)
    if query is None:
        made = left.inputs[0].op if left.inputs else "an input"
        known = _transposed(left, *SPLIT) is None
        return Skip(
            f"its query comes from {made}, not from the Transpose that splits heads"
            if known
            else f"nothing is known of the shape of its query {left.name}"
        )
    pair = _pair(right, node.inputs[1], scores, shapes)
    if isinstance(pair, Skip):
        return pair
    found = Attention(node, output, query, *pair, scores.scale, tuple(reversed(scores.masks)), zero_nan)
    return _misfit(found) or found


def _softmax_input(weights: gs.Tensor, opset: int, is_output: IsOutput) -> gs.Tensor | Skip | None:
    """Return what the weights are the Softmax of, along the last of four axes."""
    node = weights.inputs[0] if weights.inputs else None
    if node is None:
        return None
    if node.op == "Softmax" and is_standard(node):
        axis = int(node.attrs.get("axis", -1 if opset >= OPSET_ONE_AXIS else 1))
        # Before opset 13 several axes from this one on count as one: here it is one.
        return node.inputs[0] if axis in (-1, len(SPLIT) - 1) else Skip(f"its Softmax is along axis {axis}")
    form = match_softmax(node, opset, is_output) if node.op in ("Div", "Mul") else None
    return form.x if isinstance(form, Softmax) and form.axis == -1 else None


@dataclass
class _Scores:
    """The product of query and key, and what was met on the way from it to the Softmax, from its end."""

    product: gs.Node
    scale: float
    masks: list[Mask]
    scalars: list[gs.Node] = field(default_factory=list)
    cut: list[gs.Node] = field(default_factory=list)


def _weights(tensor: gs.Tensor, inner: list[gs.Tensor]) -> tuple[gs.Tensor, bool]:
    """Return the output of the Softmax behind what multiplies the value, and whether NaN becomes zero between."""
    zero_nan = False
    while True:
        tensor = _plain(tensor, inner)
        guarded = _without_guard(tensor)
        if guarded is None:
            return tensor, zero_nan
        inner += [tensor, guarded[1]]
        tensor, zero_nan = guarded[0], True


def _without_guard(tensor: gs.Tensor) -> tuple[gs.Tensor, gs.Tensor] | None:
    """Return p and IsNaN(p) of Where(IsNaN(p), 0, p)."""
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is None or maker.op != "Where" or not maker.inputs[0].inputs:
        return None
    test, zero, other = maker.inputs[0].inputs[0], maker.inputs[1], maker.inputs[2]
    values = zero.values if isinstance(zero, gs.Constant) else None
    if test.op != "IsNaN" or test.inputs[0] is not other or values is None or np.any(values):
        return None
    return other, maker.inputs[0]


def _plain(tensor: gs.Tensor, inner: list[gs.Tensor] | None = None) -> gs.Tensor:
    """Return what a tensor holds, behind Identity, Dropout and Casts between floats."""
    while tensor.inputs and _is_plain(tensor.inputs[0]):
        if inner is not None:
            inner.append(tensor)
        tensor = tensor.inputs[0].inputs[0]
    return tensor


def _is_plain(node: gs.Node) -> bool:
    if not is_standard(node):
        return False
    if node.op == "Dropout":
        training = len(node.inputs) > 2 and bool(node.inputs[2].name)
        return not training and not any(output.outputs for output in node.outputs[1:])
    to_float = node.op == "Cast" and onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"])).name in FLOATS
    return node.op == "Identity" or to_float


def _scores(tensor: gs.Tensor, shapes: Shapes, inner: list[gs.Tensor]) -> _Scores | Skip | None:
    """Follow masks and factors from what the Softmax is taken of to the product of query and key."""
    masks: list[Mask] = []
    cut: list[gs.Node] = []
    scale, scaled = 1.0, False
    while True:
        tensor = _plain(tensor, inner)
        inner.append(tensor)
        maker = tensor.inputs[0] if tensor.inputs else None
        if maker is None or not is_standard(maker):
            return None
        if maker.op == "MatMul":
            return _Scores(maker, scale, masks, cut=cut)
        factor = _factor(maker, shapes)
        if factor is not None:
            tensor, number = factor
            scale, scaled = scale * number, True
            continue
        masked = _masked(maker, shapes, cut)
        if masked is None or isinstance(masked, Skip):
            return masked
        if scaled:
            return Skip("its scores are multiplied after a mask is applied")
        tensor, mask = masked
        masks.append(mask)


def _factor(node: gs.Node, shapes: Shapes) -> tuple[gs.Tensor, float] | None:
    """Return the tensor and the number that a node multiplies it with."""
    if node.op not in ("Mul", "Div") or not is_standard(node):
        return None
    left, right = (shapes.scalar(tensor) for tensor in node.inputs)
    if right is not None and (node.op == "Mul" or right):
        return node.inputs[0], right if node.op == "Mul" else 1 / right
    return (node.inputs[1], left) if left is not None and node.op == "Mul" else None


def _masked(node: gs.Node, shapes: Shapes, cut: list[gs.Node]) -> tuple[gs.Tensor, Mask] | Skip | None:
    """Return the scores and the mask that a node applies to them."""
    if node.op == "Add":
        paths = [tensor for tensor in node.inputs if _has_product(tensor, shapes)]
        if len(paths) != 1:
            return None
        mask = node.inputs[1] if paths[0] is node.inputs[0] else node.inputs[0]
        tensor, to = _unexpanded(mask, cut)
        return paths[0], Mask(tensor, to=to)
    if node.op != "Where":
        return None
    condition, shown, hidden = node.inputs
    hides = shapes.scalar(shown) is not None
    scores, fill = (hidden, shown) if hides else (shown, hidden)
    number = shapes.scalar(fill)
    if number is None:
        return Skip("its scores are replaced with a tensor by Where")
    if number > LOW:
        return Skip(f"hidden scores are replaced with {number:g}: not low enough to lose what is added to it")
    tensor, to = _unexpanded(condition, cut)
    return scores, Mask(tensor, number, hides, to)


def _has_product(tensor: gs.Tensor, shapes: Shapes) -> bool:
    """Tell whether a tensor is a product of two activations behind factors and masks."""
    tensor = _plain(tensor)
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is None:
        return False
    if maker.op == "MatMul":
        return not any(isinstance(tensor, gs.Constant) for tensor in maker.inputs)
    factor = _factor(maker, shapes)
    if factor is not None:
        return _has_product(factor[0], shapes)
    inputs = maker.inputs[1:] if maker.op == "Where" else maker.inputs if maker.op == "Add" else []
    return any(_has_product(tensor, shapes) for tensor in inputs)


def _unexpanded(tensor: gs.Tensor, cut: list[gs.Node]) -> tuple[gs.Tensor, int | None]:
    """Return a mask before it was expanded to the scores and cast, where it was, and the type of the cast."""
    node, to = (tensor.inputs[0] if tensor.inputs else None), None
    if node is not None and node.op == "Cast":
        node, to = (node.inputs[0].inputs[0] if node.inputs[0].inputs else None), int(node.attrs["to"])
    if node is None or node.op != "Expand" or not _is_shape(node.inputs[1]):
        return tensor, None
    cut.append(node)
    return node.inputs[0], to


def _is_shape(tensor: gs.Tensor) -> bool:
    return bool(tensor.inputs) and tensor.inputs[0].op == "Shape"


def _leak(inner: list[gs.Tensor], last: gs.Node, scores: _Scores, is_output: IsOutput) -> str | None:
    """Return why a value between the products has to stay, or None: who asks for its shape alone can be told."""
    inside = {id(tensor.inputs[0]) for tensor in inner if tensor.inputs} | {id(last)}
    cut = {id(node) for node in scores.cut}
    for tensor in inner:
        if is_output(tensor):
            return f"its inner value {tensor.name} is an output of the graph"
        for reader in tensor.outputs:
            expands = reader.op == "Shape" and all(id(after) in cut for after in reader.outputs[0].outputs)
            if id(reader) not in inside and not expands:
                return f"its inner value {tensor.name} is also used by {reader.name or reader.op}"
    return None


def _joined(node: gs.Node, is_output: IsOutput) -> gs.Variable | None:
    """Return the product with the value as [batch, tokens, heads, width], where that is all that is made of it."""
    tensor = node.outputs[0]
    while len(tensor.outputs) == 1 and not is_output(tensor):
        reader = tensor.outputs[0]
        if reader.op == "Transpose":
            return reader.outputs[0] if tuple(reader.attrs.get("perm", ())) == SPLIT else None
        if not _is_plain(reader) or reader.op == "Cast":
            return None
        tensor = reader.outputs[0]
    return None


def _scaled(tensor: gs.Tensor, scores: _Scores, shapes: Shapes) -> gs.Tensor:
    """Return a tensor without the numbers that it is multiplied with, which go to the scale of the scores."""
    while True:
        tensor = _plain(tensor)
        factor = _factor(tensor.inputs[0], shapes) if tensor.inputs else None
        if factor is None:
            return tensor
        tensor, number = factor
        scores.scale *= number


def _transposed(tensor: gs.Tensor, *perm: int) -> gs.Tensor | None:
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is None or maker.op != "Transpose" or tuple(maker.attrs.get("perm", ())) != perm:
        return None
    found: gs.Tensor = maker.inputs[0]
    return found


def _heads(tensor: gs.Tensor | None, shapes: Shapes, split: bool) -> Heads | None:
    shape = shapes.shape(tensor) if tensor is not None else None
    return Heads(tensor, shape, split) if shape is not None and len(shape) == len(SPLIT) else None


def _split(tensor: gs.Tensor, shapes: Shapes) -> Heads | None:
    return _heads(_transposed(tensor, *SPLIT), shapes, split=True)


def _pair(right: gs.Tensor, value: gs.Tensor, scores: _Scores, shapes: Shapes) -> tuple[Heads, Heads] | Skip:
    """Return key and value, both split or both not."""
    value = _plain(value)
    direct = _heads(_transposed(right, 0, 2, 3, 1), shapes, split=True)
    plain = None if direct else _last_two_swapped(right, shapes)
    plain = None if plain is None else _scaled(plain, scores, shapes)
    key_split = direct or (_split(plain, shapes) if plain is not None else None)
    value_split = _split(value, shapes)
    if key_split and value_split:
        return key_split, value_split
    key_plain, value_plain = (_heads(tensor, shapes, split=False) for tensor in (plain, value))
    if key_plain and value_plain:
        return key_plain, value_plain
    if value_plain is None:
        return Skip(f"nothing is known of its value {value.name}")
    return Skip("its key is transposed in a way not known to swap tokens and width")


def _last_two_swapped(tensor: gs.Tensor, shapes: Shapes) -> gs.Tensor | None:
    """Return k [batch, heads, tokens, width] of what multiplies the query, by Transpose or by Transpose of matrices."""
    plain = _transposed(tensor, 0, 1, 3, 2)
    if plain is not None:
        return plain
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


def _misfit(found: Attention) -> Skip | None:
    """Return why the parts do not fit together, or None."""
    heads = [part.heads for part in _parts(found)]
    if None in heads or len(set(heads)) > 1:
        return Skip(f"query, key and value have {', '.join('?' if h is None else str(h) for h in heads)} heads")
    batches = [part.batch for part in _parts(found)]
    if any(batch.static == 1 for batch in batches) and len(set(batches)) > 1:
        return Skip("its query, key and value have batches of different sizes")
    return None


def _parts(found: Attention) -> Iterator[Heads]:
    yield from (found.query, found.key, found.value)
