"""The rank of one tensor, of those that passes wrote, too: found by looking back from it, no further than needed."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import onnx_graphsurgeon as gs

from ...functions.function import FUNCTIONS
from ..constants import resolve, small_values

# Operators followed before giving up: an answer, if there is one, is near.
DEEPEST = 150
Rank = int | None
_Of = Callable[[gs.Tensor], Rank]


def rank(tensor: gs.Tensor) -> Rank:
    """Return a tensor's rank, or None where neither it nor what it comes from says."""
    return _rank(tensor, DEEPEST)


# Ranks found so far, by id of the tensor, for as long as it lives: a rank never changes.
_found: dict[int, tuple[weakref.ref[gs.Tensor], Rank]] = {}


def _rank(tensor: gs.Tensor, deepest: int) -> Rank:
    key = id(tensor)
    if key in _found:
        return _found[key][1]
    if tensor.shape is not None:
        return len(tensor.shape)
    if not tensor.inputs or deepest == 0:
        return None
    function = FUNCTIONS.get(tensor.inputs[0].op)
    if function is not None:
        how = _first if function.keeps_axes else _looked_up if "Gather" in function.name else lambda *_: None
        return how(tensor.inputs[0], lambda inner: _rank(inner, deepest - 1))
    if tensor.inputs[0].op not in _RANKS:
        return None
    node = tensor.inputs[0]
    if node.op in _NUMBERS_BEHIND_FIRST and tensor is not node.outputs[0]:
        return 0
    found = _RANKS[node.op](node, lambda inner: _rank(inner, deepest - 1))
    _found[key] = (weakref.ref(tensor, lambda _: _found.pop(key, None)), found)
    return found


def _first(node: gs.Node, of: _Of) -> Rank:
    return of(node.inputs[0])


def _largest(node: gs.Node, of: _Of) -> Rank:
    ranks = [of(tensor) for tensor in node.inputs]
    return None if None in ranks else max(rank for rank in ranks if rank is not None)


def _gathered(node: gs.Node, of: _Of) -> Rank:
    data, indices = of(node.inputs[0]), of(node.inputs[1])
    return None if data is None or indices is None else data + indices - 1


def _looked_up(node: gs.Node, of: _Of) -> Rank:
    indices = of(node.inputs[-1])
    return None if indices is None else indices + 1


def _unsqueezed(node: gs.Node, of: _Of) -> Rank:
    inner = of(node.inputs[0])
    axes = node.attrs["axes"] if "axes" in node.attrs else small_values(node.inputs[1])
    return None if inner is None or axes is None else inner + len(axes)


def _squeezed(node: gs.Node, of: _Of) -> Rank:
    inner = of(node.inputs[0])
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1:
        axes = small_values(node.inputs[1])
    return None if inner is None or axes is None else inner - len(axes)


def _reduced(node: gs.Node, of: _Of) -> Rank:
    inner = of(node.inputs[0])
    if node.attrs.get("keepdims", 1):
        return inner
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1].name:
        axes = small_values(node.inputs[1])
        return None if inner is None or axes is None else inner - len(axes)
    return 0 if axes is None else None if inner is None else inner - len(axes)


def _reshaped(node: gs.Node, of: _Of) -> Rank:
    return _length(node.inputs[1], of)


def _expanded(node: gs.Node, of: _Of) -> Rank:
    data, shape = of(node.inputs[0]), _length(node.inputs[1], of)
    return None if data is None or shape is None else max(data, shape)


def _length(shape: gs.Tensor, of: _Of) -> Rank:
    """Return the number of dimensions that a shape tensor lists."""
    view = resolve(shape)
    if view is not None:
        # Some exporters join scalars.
        return view.shape[0] if view.shape else 1
    if not shape.inputs:
        return shape.shape[0] if shape.shape and isinstance(shape.shape[0], int) else None
    node = shape.inputs[0]
    lengths = [_length(tensor, of) for tensor in node.inputs[_LISTS.get(node.op, slice(0))]]
    if node.op == "Shape" and not node.attrs:
        return of(node.inputs[0])
    if lengths:
        return None if None in lengths else sum(length for length in lengths if length is not None)
    return 1 if node.op == "Unsqueeze" else None


# Operators whose outputs but the first are single numbers.
_NUMBERS_BEHIND_FIRST = frozenset({"DynamicQuantizeLinear"})
# Inputs that list what the output lists, one after the other.
_LISTS = {"Cast": slice(1), "Concat": slice(None), "Gather": slice(1, 2), "Identity": slice(1)}
_KEEP = (
    *(
        "Abs",
        "Cast",
        "Clip",
        "Concat",
        "Dropout",
        "DynamicQuantizeLinear",
        "Erf",
        "Exp",
        "FastGelu",
        "Gelu",
        "Identity",
        "LayerNormalization",
    ),
    *("Log", "Neg", "Not", "Pad", "Pow", "Reciprocal", "Relu", "RMSNormalization", "Sigmoid", "Slice", "Softmax"),
    *("SimplifiedLayerNormalization", "SkipLayerNormalization", "Split", "Sqrt", "Tanh", "Tile", "Transpose"),
    # What passes write, and the runtime's own.
    *(
        "Attention",
        "BiasGelu",
        "DequantizeLinear",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QuantizeLinear",
        "QuickGelu",
    ),
)
_JOIN = ("Add", "And", "Div", "Equal", "Greater", "Less", "MatMul", "Max", "Min", "Mul", "Or", "Sub", "Sum", "Where")
_RANKS: dict[str, Callable[[gs.Node, _Of], Rank]] = {
    **dict.fromkeys(_KEEP, _first),
    **dict.fromkeys(_JOIN, _largest),
    **dict.fromkeys(("ReduceL1", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduced),
    "ConstantOfShape": lambda node, of: _length(node.inputs[0], of),
    "Expand": _expanded,
    "Gather": _gathered,
    "Range": lambda *_: 1,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
}
