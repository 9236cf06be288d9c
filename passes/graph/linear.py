"""MatMul and Gemm with a constant weight, seen as one thing: output = alpha * x @ weight + beta * bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..report import Skip
from .constants import ConstantView, resolve
from .walk import is_standard


@dataclass(frozen=True)
class Linear:
    """A product with a constant weight.

    Attributes:
        node: the MatMul or Gemm.
        x: its activation, [..., k] ([k, m] when transpose_x).
        weight: its weight, [*batch, k, n] ([n, k] when transpose_weight).
        transpose_x: Gemm's transA.
        transpose_weight: Gemm's transB.
        alpha: factor of the product.
        beta: factor of the bias.
        bias: Gemm's third input, or None.
    """

    node: gs.Node
    x: gs.Tensor
    weight: ConstantView
    transpose_x: bool = False
    transpose_weight: bool = False
    alpha: float = 1.0
    beta: float = 1.0
    bias: gs.Tensor | None = None

    @property
    def batch(self) -> tuple[int, ...]:
        """Leading dimensions of the weight."""
        return self.weight.shape[:-2]

    @property
    def k(self) -> int:
        """Length of the axis that is summed over."""
        return self.weight.shape[-1 if self.transpose_weight else -2]

    @property
    def n(self) -> int:
        """Columns of the output."""
        return self.weight.shape[-2 if self.transpose_weight else -1]

    def matrix(self) -> NDArray[np.floating]:
        """Load the weight as one matrix, [k, columns]: the columns of all batches side by side."""
        values = self.weight.values()
        values = values.swapaxes(-1, -2) if self.transpose_weight else values
        return np.moveaxis(values, -2, 0).reshape(self.k, -1)


def match_linear(node: gs.Node) -> Linear | Skip | None:
    """Return the product a node stands for, why it is none that can be rewritten, or None for other operators."""
    if node.op not in ("MatMul", "Gemm") or not is_standard(node):
        return None
    weight = resolve(node.inputs[1])
    if weight is None:
        left = resolve(node.inputs[0]) is not None
        return Skip("its constant is on the left" if left else "both inputs are activations")
    if resolve(node.inputs[0]) is not None:
        return Skip("both inputs are constants: the session folds the node")
    if not weight.is_float:
        return Skip(f"its weight is {weight.dtype}, not a float")
    if node.inputs[0].shape is not None and len(node.inputs[0].shape) == 1:
        return Skip("its activation is a vector: one row is not worth quantizing")
    if len(weight.shape) < 2 or 0 in weight.shape:
        return Skip(f"its weight has shape {list(weight.shape)}, not a matrix")
    if node.op == "MatMul":
        return Linear(node, node.inputs[0], weight)
    attrs = node.attrs
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    return Linear(
        node,
        node.inputs[0],
        weight,
        transpose_x=bool(attrs.get("transA", 0)),
        transpose_weight=bool(attrs.get("transB", 0)),
        alpha=float(attrs.get("alpha", 1.0)),
        beta=float(attrs.get("beta", 1.0)),
        bias=bias,
    )


def added_bias(linear: Linear) -> tuple[NDArray[np.floating], gs.Node] | None:
    """Return the constant vector [n] that is added to a product, and the Add that is the only one to read it."""
    output = linear.node.outputs[0]
    add = output.outputs[0] if len(output.outputs) == 1 else None
    if add is None or add.op != "Add":
        return None
    vector = as_vector(add.inputs[1] if add.inputs[0] is output else add.inputs[0], linear.n)
    return None if vector is None else (vector, add)


def as_vector(tensor: gs.Tensor, n: int) -> NDArray[np.floating] | None:
    """Return the elements of a constant float vector [n], or None for other tensors."""
    view = resolve(tensor)
    return view.values() if view is not None and view.shape == (n,) and view.is_float else None
