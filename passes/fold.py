"""Weights that are computed from constants, as constants: sums, products, slices, norms, updates kept apart.

    Before: w [k, n], a [k, r], b [r, n] -- w + scale * (a @ b) -- MatMul, Gather, LayerNormalization, ...
    After:  constant [k, n] under the name of the sum -- the same readers

bit for bit as the session computes it. What would be larger than the floats that it comes from (a table made of a
range, a row repeated) stays computed; so does what is made of codes, which are small already. What `resolve` sees
through needs no copy.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .context import Context
from .graph.activations import HUGE
from .graph.constants import load, resolve
from .graph.evaluate import NotComputedError, evaluate
from .graph.new import redirect
from .graph.operators import is_random
from .graph.types import FLOAT_NAMES
from .graph.walk import has_body, is_standard, walk
from .report import Skip

# As many elements are folded whatever they come from: scalars, axes, shapes.
SMALL = 16
# What these make of codes stays codes in the file.
DECODERS = frozenset({"BitShift", "DequantizeLinear", "DequantizeBFP", "GatherBlockQuantized", "MatMulNBits"})


@dataclass(frozen=True)
class Computed:
    """A node whose outputs others read, and the nodes and constants that they are computed from.

    Attributes:
        node: the node.
        cone: it and the nodes before it, inputs first.
        sources: the constants that those read.
    """

    node: gs.Node
    cone: tuple[gs.Node, ...]
    sources: tuple[gs.Constant, ...]


@dataclass(frozen=True)
class Computable:
    """What a graph computes from constants alone.

    Attributes:
        nodes: the nodes that do, in the graph and in bodies, by id.
        spent: how many numbers of a constant were written anew as part of others, by its id.
    """

    nodes: dict[int, gs.Node] = field(default_factory=dict)
    spent: Counter[int] = field(default_factory=Counter)

    def holds(self, tensor: gs.Tensor) -> bool:
        """Tell whether a tensor is a constant or computed from constants."""
        return isinstance(tensor, gs.Constant) or (bool(tensor.inputs) and id(tensor.inputs[0]) in self.nodes)


def find_computable(context: Context) -> Computable:
    """Return what a graph computes from constants alone."""
    found = Computable()
    for _, node in walk(context.editor.graph):
        if _is_followed(node) and all(found.holds(tensor) for tensor in node.inputs if tensor.name):
            found.nodes[id(node)] = node
    return found


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Computed | Skip | None:
    """Return the node if what it computes from constants is read by one that does not."""
    del scope
    if id(node) not in context.found(find_computable).nodes or not _wanted(node, context):
        return None
    cone: dict[int, gs.Node] = {}
    _collect(node, cone)
    kept = next(filter(None, map(context.kept, cone.values())), None)
    if kept:
        return Skip(f"what it is computed from is {kept.reason}")
    read = [tensor for each in cone.values() for tensor in each.inputs if isinstance(tensor, gs.Constant)]
    return Computed(node, tuple(cone.values()), tuple({id(source): source for source in read}.values()))


def replace(context: Context, matches: list[Computed]) -> Skip | None:
    """Put what a node computes in its place."""
    (computed,) = matches
    node, wanted = computed.node, _wanted(computed.node, context)
    try:
        values = _values(computed, context)
    except NotComputedError as error:
        return Skip(str(error))
    results = {output.name: values[id(output)] for output in wanted}
    floats = {id(s): math.prod(s.shape) for s in computed.sources if _is_float(s.dtype)}
    size, left = sum(array.size for array in results.values()), sum(floats.values())
    left -= sum(context.found(find_computable).spent[source] for source in floats)
    small = all(array.size <= SMALL for array in results.values())
    if not small and not all(_is_float(array.dtype) for array in results.values()):
        return Skip(f"it makes {size} values that are no floats")
    if not small and any(np.abs(array).max(initial=0) > HUGE for array in results.values()):
        return Skip("a mask is part of it: apart from that, the rest is as exact as without")
    if not small and size > left:
        return Skip(f"it makes {size} numbers of {max(left, 0)}: computed when the session is made, it takes less room")
    _spend(context, floats, 0 if small else size)
    for output in wanted:
        redirect(output, gs.Constant(output.name, context.editor.move(np.ascontiguousarray(results[output.name]))))
    if not any(context.is_output(output) or output.outputs for output in node.outputs):
        node.outputs.clear()
    return None


def _is_followed(node: gs.Node) -> bool:
    known = is_standard(node) or node.domain == "com.microsoft"
    return known and node.op not in DECODERS and bool(node.outputs) and not has_body(node) and not is_random(node)


def _wanted(node: gs.Node, context: Context) -> list[gs.Variable]:
    """Return the outputs that others than computed nodes read, and that no view of a constant shows."""
    computed = context.found(find_computable).nodes
    return [
        output
        for output in node.outputs
        if output.name
        and not context.is_output(output)
        and any(id(reader) not in computed for reader in output.outputs)
        and resolve(output) is None
    ]


def _collect(node: gs.Node, cone: dict[int, gs.Node]) -> None:
    for tensor in node.inputs:
        if tensor.inputs and id(tensor.inputs[0]) not in cone:
            _collect(tensor.inputs[0], cone)
    cone[id(node)] = node


def _values(computed: Computed, context: Context) -> dict[int, NDArray[Any]]:
    """Return the outputs of a cone's last node; those of the others are gone when nobody reads them any more."""
    last = {id(tensor): number for number, each in enumerate(computed.cone) for tensor in each.inputs}
    values: dict[int, NDArray[Any]] = {}
    for number, each in enumerate(computed.cone):
        inputs = [load(t) if isinstance(t, gs.Constant) else values[id(t)] if t.name else None for t in each.inputs]
        for output, array in zip(each.outputs, evaluate(each, inputs, context.editor.opset), strict=True):
            if array is not None:
                values[id(output)] = array
        for tensor in each.inputs:
            if last[id(tensor)] == number:
                values.pop(id(tensor), None)
    return values


def _is_float(dtype: Any) -> bool:
    return getattr(dtype, "name", None) in FLOAT_NAMES


def _spend(context: Context, floats: dict[int, int], size: int) -> None:
    """Note that so many numbers of the sources were written: they do not pay for others, too."""
    spent = context.found(find_computable).spent
    for source, elements in sorted(floats.items(), key=lambda item: -item[1]):
        more = min(size, elements - spent[source])
        spent[source] += more
        size -= more
