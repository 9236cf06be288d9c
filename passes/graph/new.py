"""What passes add to a graph: nodes and constants of their own, under names that are free, in an order that runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues


def redirect(old: gs.Tensor, new: gs.Tensor, readers: Iterable[gs.Node] | None = None) -> None:
    """Let `readers` of `old`, all of them unless told otherwise, read `new`."""
    for reader in list(old.outputs if readers is None else readers):
        reader.inputs = [new if tensor is old else tensor for tensor in reader.inputs]


class PackedValues(LazyValues):  # type: ignore[misc]
    """Values of a type below 8 bits: `tensor` without its data, which is `content`, uint8 [bytes]."""

    def __init__(self, kind: int, shape: Sequence[int], content: NDArray[np.uint8]) -> None:
        """Take the ONNX element type, the shape and the bytes as ONNX packs them."""
        super().__init__(onnx.TensorProto(data_type=kind, dims=shape))
        self.content = content.data

    def load(self) -> NDArray[Any]:
        """Return the values, one a byte."""
        whole = onnx.TensorProto(data_type=self.tensor.data_type, dims=self.tensor.dims, raw_data=bytes(self.content))
        return np.asarray(onnx.numpy_helper.to_array(whole))


class NewConstant(gs.Constant):  # type: ignore[misc]
    """A constant that a pass wrote, none of the input model's."""


class NewNode(gs.Node):  # type: ignore[misc]
    """A node that a pass wrote, named after what it makes."""


def in_order(nodes: Sequence[gs.Node]) -> list[gs.Node]:
    """Return nodes, each behind those that make what it reads, else as they are."""
    waiting = {id(node): node for node in nodes}
    ordered: list[gs.Node] = []

    def place(node: gs.Node) -> None:
        if waiting.pop(id(node), None) is not None:
            for tensor in node.inputs:
                for maker in tensor.inputs:
                    place(maker)
            ordered.append(node)

    for node in nodes:
        place(node)
    return ordered


def fresh_name(name: str, taken: set[str]) -> str:
    """Return a name, with a number behind it where it is taken, and take it."""
    fresh, count = name, 0
    while fresh in taken:
        count += 1
        fresh = f"{name}.{count}"
    taken.add(fresh)
    return fresh
