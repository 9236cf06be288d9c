"""The scores of attention: what lies between the product of query and key and the product with the value."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..graph.constants import FLOATS, load
from ..graph.shapes import Shapes
from ..graph.walk import is_standard
from ..report import Skip
from ..softmax.form import OPSET_ONE_AXIS
from .region import IsOutput

# The last of the axes: batch, heads, tokens of the query, tokens of the key.
LAST = 3
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


@dataclass
class Scores:
    """The way from the product of query and key to that with the value.

    Attributes:
        product: the product of query and key.
        scale: factor of the product; its inputs may bring in more.
        masks: in the order in which they are applied.
        zero_nan: rows of NaN count as zeros.
    """

    product: gs.Node
    scale: float
    masks: tuple[Mask, ...]
    zero_nan: bool


@dataclass
class _Way:
    """What was met so far on the way from the product with the value: tensors, masks, shapes asked for."""

    shapes: Shapes
    inner: list[gs.Tensor] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    expands: list[gs.Node] = field(default_factory=list)
    scale: float = 1.0


def match_scores(last: gs.Node, shapes: Shapes, opset: int, is_output: IsOutput) -> Scores | Skip | None:
    """Return the scores that the product `last` takes its weights from, why they have to stay, or None."""
    way = _Way(shapes)
    weights, zero_nan = _weights(last.inputs[0], way.inner)
    way.inner.append(weights)
    x = _softmax_input(weights, opset)
    product = _product(x, way) if isinstance(x, gs.Tensor) else x
    if not isinstance(product, gs.Node):
        return product
    leak = _leak(way, last, is_output)
    return Skip(leak) if leak else Scores(product, way.scale, tuple(reversed(way.masks)), zero_nan)


def _softmax_input(weights: gs.Tensor, opset: int) -> gs.Tensor | Skip | None:
    """Return what the weights are the Softmax of, along the last of four axes."""
    node = weights.inputs[0] if weights.inputs else None
    if node is None or node.op != "Softmax" or not is_standard(node):
        return None
    axis = int(node.attrs.get("axis", -1 if opset >= OPSET_ONE_AXIS else 1))
    # Before opset 13 all axes from this one on count as one: here that is one.
    return node.inputs[0] if axis in (-1, LAST) else Skip(f"its Softmax is along axis {axis}")


def _weights(tensor: gs.Tensor, inner: list[gs.Tensor]) -> tuple[gs.Tensor, bool]:
    """Return the output of the Softmax behind what multiplies the value, and whether NaN becomes zero between."""
    zero_nan = False
    while True:
        tensor = plain(tensor, inner)
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
    values = load(zero) if isinstance(zero, gs.Constant) else None
    if test.op != "IsNaN" or test.inputs[0] is not other or values is None or np.any(values):
        return None
    return other, maker.inputs[0]


def plain(tensor: gs.Tensor, inner: list[gs.Tensor] | None = None) -> gs.Tensor:
    """Return what a tensor holds, behind Identity, Dropout and Casts between floats."""
    while tensor.inputs and is_plain(tensor.inputs[0]):
        if inner is not None:
            inner.append(tensor)
        tensor = tensor.inputs[0].inputs[0]
    return tensor


def is_plain(node: gs.Node) -> bool:
    """Tell whether a node hands on the numbers of its first input: Identity, Dropout, a Cast between floats."""
    if not is_standard(node):
        return False
    if node.op == "Dropout":
        training = len(node.inputs) > 2 and bool(node.inputs[2].name)
        return not training and not any(output.outputs for output in node.outputs[1:])
    to_float = node.op == "Cast" and onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"])).name in FLOATS
    return node.op == "Identity" or to_float


def _product(tensor: gs.Tensor, way: _Way) -> gs.Node | Skip | None:
    """Follow masks and factors from what the Softmax is taken of to the product of query and key."""
    scaled = False
    while True:
        tensor = plain(tensor, way.inner)
        way.inner.append(tensor)
        maker = tensor.inputs[0] if tensor.inputs else None
        if maker is None or not is_standard(maker) or maker.op == "MatMul":
            return maker if maker is not None and is_standard(maker) else None
        scalar = factor(maker, way.shapes)
        if scalar is not None:
            (tensor, number), scaled = scalar, True
            way.scale *= number
            continue
        masked = _masked(maker, way)
        if masked is None or isinstance(masked, Skip):
            return masked
        if scaled:
            return Skip("its scores are multiplied after a mask is applied")
        tensor = masked


def factor(node: gs.Node, shapes: Shapes) -> tuple[gs.Tensor, float] | None:
    """Return the tensor and the number that a node multiplies it with."""
    if node.op not in ("Mul", "Div") or not is_standard(node):
        return None
    left, right = (shapes.scalar(tensor) for tensor in node.inputs)
    if right is not None and (node.op == "Mul" or right):
        return node.inputs[0], right if node.op == "Mul" else 1 / right
    return (node.inputs[1], left) if left is not None and node.op == "Mul" else None


def _masked(node: gs.Node, way: _Way) -> gs.Tensor | Skip | None:
    """Return the scores that a node applies a mask to, and note the mask."""
    if node.op == "Add":
        paths = [tensor for tensor in node.inputs if _has_product(tensor, way.shapes)]
        if len(paths) != 1:
            return None
        mask = node.inputs[1] if paths[0] is node.inputs[0] else node.inputs[0]
        tensor, to = _unexpanded(mask, way.expands)
        way.masks.append(Mask(tensor, to=to))
        return paths[0]
    if node.op != "Where":
        return None
    condition, shown, hidden = node.inputs
    hides = way.shapes.scalar(shown) is not None
    scores, fill = (hidden, shown) if hides else (shown, hidden)
    number = way.shapes.scalar(fill)
    if number is None:
        return Skip("its scores are replaced with a tensor by Where")
    if number > LOW:
        return Skip(f"hidden scores are replaced with {number:g}: not low enough to lose what is added to it")
    tensor, to = _unexpanded(condition, way.expands)
    way.masks.append(Mask(tensor, number, hides, to))
    return scores


def _has_product(tensor: gs.Tensor, shapes: Shapes) -> bool:
    """Tell whether a tensor is a product of two activations behind factors and masks."""
    tensor = plain(tensor)
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is None:
        return False
    if maker.op == "MatMul":
        return not any(isinstance(tensor, gs.Constant) for tensor in maker.inputs)
    scalar = factor(maker, shapes)
    if scalar is not None:
        return _has_product(scalar[0], shapes)
    inputs = maker.inputs[1:] if maker.op == "Where" else maker.inputs if maker.op == "Add" else []
    return any(_has_product(tensor, shapes) for tensor in inputs)


def _unexpanded(tensor: gs.Tensor, expands: list[gs.Node]) -> tuple[gs.Tensor, int | None]:
    """Return a mask before it was expanded to the scores and cast, where it was, and the type of the cast."""
    source, to = tensor, None
    if source.inputs and source.inputs[0].op == "Cast":
        source, to = source.inputs[0].inputs[0], int(source.inputs[0].attrs["to"])
    node = source.inputs[0] if source.inputs else None
    if node is None or node.op != "Expand" or not _is_shape(node.inputs[1]):
        return tensor, None
    expands.append(node)
    return node.inputs[0], to


def _is_shape(tensor: gs.Tensor) -> bool:
    return bool(tensor.inputs) and tensor.inputs[0].op == "Shape"


def _leak(way: _Way, last: gs.Node, is_output: IsOutput) -> str | None:
    """Return why a value between the products has to stay, or None: who asks for its shape alone can be told."""
    inside = {id(tensor.inputs[0]) for tensor in way.inner if tensor.inputs} | {id(last)}
    cut = {id(node) for node in way.expands}
    for tensor in way.inner:
        if is_output(tensor):
            return f"its inner value {tensor.name} is an output of the graph"
        for reader in tensor.outputs:
            expands = reader.op == "Shape" and all(id(after) in cut for after in reader.outputs[0].outputs)
            if id(reader) not in inside and not expands:
                return f"its inner value {tensor.name} is also used by {reader.name or reader.op}"
    return None
