"""Which tensors are intermediate results: floats that follow from weights or float inputs, as the input model has them.

Left out are floats made of integers and constants only (masks, positions, shapes) and floats that a mask of huge
values was added to: a block's scale must not stretch to minus infinity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from .constants import load, resolve
from .operators import Trait, traits_of
from .types import float_types
from .walk import has_body, scopes, walk

# Behind these a mask's huge values are gone.
UNMASKED = Trait.MULTIPLIES | Trait.NORMALIZES | Trait.BOUNDED
# Magnitudes that say "masked", as constants of a model: -10000, the lowest float, minus infinity.
HUGE = 9999.0
# A float constant of so many values is a weight or a table: what is looked up in it is an intermediate result.
SMALLEST_WEIGHT = 256


@dataclass(frozen=True)
class OriginalNode:
    """A node of the input model: the node itself (kept, so that its id stays its own), its name, operator, outputs."""

    node: gs.Node
    name: str
    op: str
    outputs: tuple[str, ...]


@dataclass
class Activations:
    """The intermediate results of a graph before it is rewritten.

    Attributes:
        types: numpy name of the float type by tensor name, intermediate results only.
        masked: those among them that may hold a mask's huge values.
        inputs: float inputs of the graph and of bodies, which nobody codes.
        nodes: the nodes, in graph order.
        ids: ids of the nodes.
        makers: operator that computes it, by tensor name.
    """

    types: dict[str, str] = field(default_factory=dict)
    masked: set[str] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)
    nodes: list[OriginalNode] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)
    makers: dict[str, str] = field(default_factory=dict)


def find_activations(graph: gs.Graph) -> Activations:
    """Return the intermediate results of a graph: float outputs of nodes that depend on weights or float inputs."""
    floats = float_types(graph)
    found = Activations()
    found.inputs = {tensor.name for scope in scopes(graph) for tensor in scope.inputs if tensor.name in floats}
    depends = set(found.inputs)
    huge: set[str] = set()
    nodes = list(walk(graph))
    # What a body computes is known only after the node that holds it.
    for _ in range(2 if any(has_body(node) for _, node in nodes) else 1):
        for _, node in nodes:
            _follow(node, floats, depends, huge)
    for _, node in nodes:
        outputs = tuple(output.name for output in node.outputs if output.name)
        found.nodes.append(OriginalNode(node, node.name or (outputs[0] if outputs else node.op), node.op, outputs))
        found.ids.add(id(node))
        found.makers.update(dict.fromkeys(outputs, node.op))
        found.types.update({name: floats[name] for name in outputs if name in depends and name in floats})
    found.masked = huge & found.types.keys()
    return found


def _follow(node: gs.Node, floats: dict[str, str], depends: set[str], huge: set[str]) -> None:
    outputs = {output.name for output in node.outputs if output.name}
    inner = {tensor.name for body in node.subgraphs() for tensor in body.outputs}
    reads = {tensor.name for tensor in node.inputs} | inner
    if Trait.SHAPES in traits_of(node):
        reads = set()
    if reads & depends or any(_is_weight(tensor) for tensor in node.inputs if node.op != "Constant"):
        depends |= outputs & floats.keys()
    if not traits_of(node) & UNMASKED and (reads & huge or _is_huge(node)):
        huge |= outputs & floats.keys()


def _is_weight(tensor: gs.Tensor) -> bool:
    view = resolve(tensor) if tensor.name else None
    return view is not None and view.is_float and int(np.prod(view.shape)) >= SMALLEST_WEIGHT


def _is_huge(node: gs.Node) -> bool:
    constants = [tensor for tensor in node.inputs if isinstance(tensor, gs.Constant)]
    constants += [value for value in node.attrs.values() if isinstance(value, gs.Constant)]
    return any(_largest(constant) >= HUGE for constant in constants)


def _largest(constant: gs.Constant) -> float:
    view = resolve(constant)
    if view is None or not view.is_float:
        return 0.0
    values = load(constant)
    return float(max(values.max(initial=0), -values.min(initial=0)))
