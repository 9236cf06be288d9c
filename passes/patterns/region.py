"""The nodes between one tensor and a node's output: a function of that tensor, which can be tried on numbers.

A form is recognized by what it computes, not by how its nodes are arranged: operands may be swapped, products
associated in any way, a square be Pow or Mul, a division be Mul or Reciprocal, constants be computed from constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..graph.axes import over_last_axis
from ..graph.constants import FLOATS, resolve
from ..graph.operators import Trait, operator_of, traits_of

Array = NDArray[np.float64]
IsOutput = Callable[[gs.Tensor], bool]

# The longest form has ten nodes between its ends, and Casts.
DEEPEST, MOST_NODES = 14, 48


@dataclass(frozen=True)
class Region:
    """A function of one tensor.

    Attributes:
        x: the tensor.
        nodes: what computes the function, inputs first.
    """

    x: gs.Tensor
    nodes: tuple[gs.Node, ...]

    @property
    def ops(self) -> set[str]:
        """Operators of the region."""
        return {node.op for node in self.nodes}

    @property
    def constants(self) -> list[Array]:
        """What the nodes read besides the function's argument."""
        return [_numbers(tensor) for node in self.nodes for tensor in operands(node) if is_known(tensor)]

    @property
    def sources(self) -> list[gs.Constant]:
        """The initializers among them."""
        views = [resolve(tensor) for node in self.nodes for tensor in operands(node)]
        return list({id(view.source): view.source for view in views if view is not None}.values())

    def __call__(self, x: Array) -> Array:
        """Return the function of x in float64; raises ValueError where shapes do not fit."""
        values: dict[int, Any] = {id(self.x): x}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                inputs = [values[id(t)] if id(t) in values else _numbers(t) for t in operands(node)]
                values[id(node.outputs[0])] = _computed(node, inputs)
        result: Array = values[id(self.nodes[-1].outputs[0])]
        return result

    def leak(self, is_output: IsOutput) -> str | None:
        """Return why an inner value has to stay, or None if nothing but the last output is used outside."""
        inside = {id(node) for node in self.nodes}
        for node in self.nodes[:-1]:
            inner = node.outputs[0]
            if is_output(inner):
                return f"its inner value {inner.name} is an output of the graph"
            reader = next((reader for reader in readers(inner) if id(reader) not in inside), None)
            if reader is not None:
                return f"its inner value {inner.name} is also used by {reader.name or reader.op}"
        return None


def regions(last: gs.Node) -> Iterator[Region]:
    """Yield the functions of one tensor that end in `last`, the smallest first."""
    inside: list[gs.Node] = []
    free: dict[int, gs.Tensor] = {}
    for node in _cone(last):
        free.pop(id(node.outputs[0]), None)
        free |= {id(t): t for t in operands(node) if not is_known(t)}
        inside.append(node)
        if len(free) == 1:
            yield Region(next(iter(free.values())), tuple(reversed(inside)))


def operands(node: gs.Node) -> list[gs.Tensor]:
    """Return the inputs of a node that are numbers, without the axes of a reduction."""
    return list(node.inputs[:1] if Trait.REDUCES in traits_of(node) else node.inputs)


def readers(tensor: gs.Tensor) -> list[gs.Node]:
    """Return the nodes that read a tensor, without those that nobody reads any more."""
    return [node for node in tensor.outputs if node.outputs]


def is_known(tensor: gs.Tensor, furthest: int = DEEPEST) -> bool:
    """Tell whether a tensor is a constant, or computed from constants alone."""
    if resolve(tensor) is not None:
        return True
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is None or furthest == 0 or not _followed(maker):
        return False
    return all(is_known(operand, furthest - 1) for operand in operands(maker))


def _cone(last: gs.Node) -> list[gs.Node]:
    """Return the nodes that are followed from `last` against the arrows, each before what it reads."""
    near, layer = {id(last): last}, [last]
    for _ in range(DEEPEST):
        read = [tensor for node in layer for tensor in operands(node)]
        makers = [tensor.inputs[0] for tensor in read if tensor.inputs and not is_known(tensor)]
        layer = list({id(node): node for node in makers if id(node) not in near and _followed(node)}.values())
        near |= {id(node): node for node in layer}
        if not layer or len(near) > MOST_NODES:
            break
    ordered: dict[int, gs.Node] = {}

    def visit(node: gs.Node) -> None:
        for tensor in operands(node):
            maker = tensor.inputs[0] if tensor.inputs else None
            if maker is not None and id(maker) in near and id(maker) not in ordered:
                visit(maker)
        ordered[id(node)] = node

    if _followed(last):
        visit(last)
    return list(reversed(ordered.values()))


def _followed(node: gs.Node) -> bool:
    operator = operator_of(node)
    if operator.function is None or len(node.outputs) != 1:
        return False
    if node.op == "Cast":
        return onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"])).name in FLOATS
    return Trait.REDUCES not in operator.traits or over_last_axis(node)


def _computed(node: gs.Node, inputs: list[Any]) -> Any:
    """Return what a node that is followed makes of numbers."""
    operator = operator_of(node)
    assert operator.function is not None
    over = {"axis": -1, "keepdims": True} if Trait.REDUCES in operator.traits else {}
    return operator.function(*inputs, **over)


def _numbers(tensor: gs.Tensor) -> Array:
    """Return the values of a tensor that `is_known`."""
    view = resolve(tensor)
    if view is not None:
        return np.asarray(view.values(), np.float64)
    maker = tensor.inputs[0]
    result: Array = _computed(maker, [*map(_numbers, operands(maker))])
    return result
