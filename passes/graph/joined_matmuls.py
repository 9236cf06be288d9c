"""Products of weights that were stored apart, as one call of all their codes."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..functions.block_matmul import INT8
from ..functions.decode_blocks import BY_SUFFIX
from ..functions.endings import FOLLOWED
from ..functions.function import DOMAIN, function_of
from ..functions.joined_matmul import STORED, can_join, joined
from .walk import is_standard

_SUFFIXES = {function.name: suffix for suffix, function in BY_SUFFIX.items()}
_PRODUCTS = {INT8.name} | {each.name for each in FOLLOWED.values() if each.name.startswith(INT8.name)}


def compose_joined_matmuls(graph: gs.Graph) -> None:
    """Let a product decode and join the parts of its weight itself, where nothing else reads them.

    ONNX Runtime folds what a body does when a session is made; a kernel reads the codes as they lie in the file.
    """
    for node in graph.nodes:
        function = function_of(node)
        # A call that another one composes is still there, and makes nothing.
        if not node.outputs or function is None or function.name not in _PRODUCTS:
            continue
        place = function.inputs.split(", ").index("weight")
        join = _only_maker(node.inputs[place])
        if join is None or not is_standard(join) or join.op != "Concat" or join.attrs.get("axis") != 1:
            continue
        suffixes = tuple(_suffix(part) for part in join.inputs)
        if "" in suffixes or not can_join(function, suffixes):
            continue
        inputs, attrs = [], dict(node.attrs)
        for number, part in enumerate(join.inputs):
            if isinstance(part, gs.Constant):
                inputs.append(part)
                continue
            (decoder,) = part.inputs
            inputs += decoder.inputs
            attrs |= {f"{name}{number}": value for name, value in decoder.attrs.items()}
            decoder.outputs.clear()
        node.op, node.attrs = joined(function, suffixes).name, attrs
        node.inputs = [*node.inputs[:place], *inputs, *node.inputs[place + 1 :]]
        join.outputs.clear()


def _only_maker(tensor: gs.Tensor) -> gs.Node | None:
    return tensor.inputs[0] if len(tensor.inputs) == 1 and len(tensor.outputs) == 1 else None


def _suffix(part: gs.Tensor) -> str:
    """Return what the names of functions say of how a part is stored; nothing where it is no codes of its own."""
    if isinstance(part, gs.Constant):
        return STORED
    maker = _only_maker(part)
    return _SUFFIXES.get(maker.op, "") if maker is not None and maker.domain == DOMAIN else ""
