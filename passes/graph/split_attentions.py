"""Calls of attention that read query, keys and values where one product leaves them, once all passes are done.

Before: qkv -- Split -- q, k, v; q -- Add(bias) -- q'; q', k, v -- RowAttention -> y
After:  qkv, bias -- SplitRowAttentionBiasQ -> y
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from ..functions.attention import ATTENTION
from ..functions.function import DOMAIN
from ..functions.split_attention import PARTS, SPLIT_ATTENTION
from .constants import load
from .new import redirect
from .shapes import rank
from .walk import is_standard, scopes

# Axes of rows [b, s, width].
AXES = 3
_MASKED = {ATTENTION[False, masked].name: masked for masked in (False, True)}


@dataclass(frozen=True)
class _Part:
    """An input of the attention: a part of the Split, as it is or with one row added."""

    split: gs.Tensor
    bias: gs.Tensor | None
    add: gs.Node | None


def compose_split_attentions(graph: gs.Graph) -> None:
    """Let an attention read what a Split gives to it alone where it lies, biases added on the way."""
    for scope in scopes(graph):
        outputs = {id(tensor) for tensor in scope.outputs}
        nodes = {id(node) for node in scope.nodes}
        for node in scope.nodes:
            if node.domain == DOMAIN and node.op in _MASKED:
                parts = [_part(tensor) for tensor in node.inputs[: len(PARTS)]]
                split = _split(node, parts, outputs)
                if split is not None and id(split) in nodes:
                    _compose(node, parts, split)


def _part(tensor: gs.Tensor) -> _Part:
    """Return what an input of the attention is, behind a sum with a row for all or none."""
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is not None and is_standard(maker) and maker.op == "Add" and len(maker.outputs) == 1:
        for x, other in (maker.inputs, maker.inputs[::-1]):
            if x.inputs and x.inputs[0].op == "Split" and _is_row(other, x):
                return _Part(x, other, maker)
    return _Part(tensor, None, None)


def _is_row(other: gs.Tensor, x: gs.Tensor) -> bool:
    """Tell whether a tensor is one row as long as those of x, and nothing that a run makes."""
    made = other.inputs[0] if other.inputs else None
    constant = isinstance(other, gs.Constant) or (
        made is not None and made.op == "Cast" and isinstance(made.inputs[0], gs.Constant)
    )
    shape = list(other.shape or ())
    known = bool(shape) and x.shape is not None and shape[-1] == x.shape[-1] and isinstance(shape[-1], int)
    return constant and known and len(shape) <= AXES and all(length == 1 for length in shape[:-1])


def _split(node: gs.Node, parts: list[_Part], outputs: set[int]) -> gs.Node | None:
    """Return the Split that makes all three, in order, for this attention alone, but for what asks for lengths."""
    split = parts[0].split.inputs[0] if parts[0].split.inputs else None
    if split is None or not _splits_rows(split) or parts[1].bias is not None:
        return None
    if [id(part.split) for part in parts] != [id(output) for output in split.outputs]:
        return None
    # What passes from the Split to the attention, and who reads it.
    passed = [(part.split, part.add or node) for part in parts]
    passed += [(given, node) for part, given in zip(parts, node.inputs, strict=False) if part.add is not None]
    readers = [reader for tensor, own in passed for reader in tensor.outputs if reader is not own]
    alone = not any(id(tensor) in outputs for tensor, _ in passed) and all(map(_asks_for_tokens, readers))
    return split if alone else None


def _splits_rows(node: gs.Node) -> bool:
    """Tell whether a node splits rows [b, s, width] in known parts."""
    if not is_standard(node) or node.op != "Split" or len(node.inputs) != len(("rows", "sizes")):
        return False
    rows, sizes = node.inputs
    return rank(rows) == AXES and node.attrs.get("axis", 0) in (-1, AXES - 1) and isinstance(sizes, gs.Constant)


def _asks_for_tokens(node: gs.Node) -> bool:
    """Tell whether a node asks for lengths that all three have."""
    if not is_standard(node) or node.op != "Shape" or node.attrs:
        return False
    places = [reader.inputs[1] for reader in node.outputs[0].outputs if reader.op == "Gather" and is_standard(reader)]
    known = all(isinstance(each, gs.Constant) and bool((load(each) < AXES - 1).all()) for each in places)
    return known and len(places) == len(node.outputs[0].outputs)


def _compose(node: gs.Node, parts: list[_Part], split: gs.Node) -> None:
    """Write the call in the place of the attention, and let what is left read what was split."""
    biased = tuple(name for name, part in zip(PARTS, parts, strict=True) if part.bias is not None)
    function = SPLIT_ATTENTION[biased, _MASKED[node.op]]
    qkv, sizes = split.inputs
    rows = [part.bias for part in parts if part.bias is not None]
    for tensor in [*node.inputs[: len(PARTS)], *split.outputs]:
        redirect(tensor, qkv, [reader for reader in tensor.outputs if reader.op == "Shape"])
    node.op = function.name
    node.attrs = {**node.attrs, "sizes": [int(size) for size in load(sizes)]}
    node.inputs = [qkv, *rows, *node.inputs[len(PARTS) :]]
    for each in [split, *(part.add for part in parts if part.add is not None)]:
        each.inputs.clear()
        each.outputs.clear()
