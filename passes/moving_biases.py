"""Products with biases, and moving these: what the passes that move biases share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .base import Rewrite
from .context import Context
from .graph.constants import resolve
from .graph.editor import Emitter
from .graph.linear import Linear, added_bias, as_vector, match_linear
from .report import Skip

# A bias moves into a normalization where it is at most this part of the scale, so that rows keep their peaks, and with
# them the steps in which they are quantized.
LARGEST_PART = 0.25
# Biases that differ by no more than this part of the largest element are one and the same.
SAME_BIAS = 1e-6
BIAS_OF_GEMM = BIAS_OF_NORMALIZATION = 2
MOVED = Skip("its bias has moved elsewhere")


@dataclass(frozen=True)
class Biased:
    """A product with a constant weight and a constant bias.

    Attributes:
        linear: the product.
        bias: what is added, [n].
        holder: the Add, or the Gemm itself.
        index: which of the holder's inputs is the bias.
        tensor: that input, as it was found.
    """

    linear: Linear
    bias: NDArray[np.floating]
    holder: gs.Node
    index: int
    tensor: gs.Tensor

    @property
    def is_current(self) -> bool:
        """Tell whether no rewrite has moved the bias since it was found."""
        return (
            bool(self.holder.outputs)
            and self.index < len(self.holder.inputs)
            and self.holder.inputs[self.index] is self.tensor
        )

    @property
    def output(self) -> gs.Tensor:
        """The sum, [..., n]."""
        return self.holder.outputs[0]

    def through(self, vector: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return what a vector [k] added to the activation adds to the sum, [n]."""
        return self.linear.alpha * (vector.astype(np.float64) @ self.linear.matrix())


def biased_product(node: gs.Node, context: Context) -> Biased | None:
    """Return a product with a constant weight and a constant bias of numbers."""
    linear = match_linear(node)
    if not isinstance(linear, Linear) or linear.batch or linear.transpose_x or context.kept(node):
        return None
    if node.op == "Gemm":
        vector = None if linear.bias is None else as_vector(linear.bias, linear.n)
        if vector is None or linear.beta != 1 or not np.isfinite(vector).all():
            return None
        return Biased(linear, vector, node, BIAS_OF_GEMM, node.inputs[2])
    added = None if context.is_output(node.outputs[0]) else added_bias(linear)
    if added is None or context.kept(added[1]):
        return None
    vector, add = added
    if not np.isfinite(vector).all():
        return None
    index = 1 if add.inputs[0] is node.outputs[0] else 0
    return Biased(linear, vector, add, index, add.inputs[index])


def only_for(node: gs.Node, rows: gs.Tensor, context: Context) -> Biased | None:
    """Return the product with a bias that makes rows for a node and for nothing else."""
    found = _product_behind(rows, context)
    return found if found and [id(reader) for reader in rows.outputs] == [id(node)] else None


def _product_behind(rows: gs.Tensor, context: Context) -> Biased | None:
    """Return the product and its bias that a tensor is."""
    maker = rows.inputs[0] if rows.inputs and not context.is_output(rows) else None
    if maker is not None and maker.op == "Add":
        maker = next((x.inputs[0] for x in maker.inputs if x.inputs and x.inputs[0].op == "MatMul"), None)
    found = biased_product(maker, context) if maker is not None else None
    return found if found and found.output is rows else None


def small_branch(total: gs.Node, x: gs.Tensor, scale: NDArray[np.float64], context: Context) -> Biased | None:
    """Return the product that x is added to, if its bias may move into the normalization, of this scale, that x is."""
    branch = only_for(total, total.inputs[1] if total.inputs[0] is x else total.inputs[0], context)
    if branch is None or branch.linear.x is x or len(branch.bias) != len(scale):
        return None
    return branch if np.abs(branch.bias).max(initial=0) <= LARGEST_PART * np.abs(scale).max(initial=0) else None


def bias_input(node: gs.Node, bias: NDArray[np.float64]) -> int | None:
    """Return which input of the last node of a normalization is its whole bias, or None."""
    numbers = [BIAS_OF_NORMALIZATION] if node.op == "LayerNormalization" else range(len(node.inputs))
    vectors = ((number, as_vector(node.inputs[number], len(bias))) for number in numbers)
    size = SAME_BIAS * np.abs(bias).max(initial=0)
    return next((n for n, vector in vectors if vector is not None and np.abs(vector - bias).max() <= size), None)


def put_bias(at: Emitter, holder: gs.Node, index: int, bias: NDArray[np.floating]) -> None:
    """Give a node another bias, of the type and under a name like that of the one before."""
    old = holder.inputs[index]
    view = resolve(old)
    assert view is not None
    holder.inputs[index] = at.constant(np.asarray(bias).astype(view.dtype), f"{old.name}.moved")


def drop_bias(biased: Biased) -> None:
    """Let the product itself make what was its sum with the bias."""
    if biased.holder.op == "Gemm":
        biased.holder.inputs = biased.holder.inputs[:BIAS_OF_GEMM]
        return
    total = biased.output
    total.inputs.clear()
    biased.linear.node.outputs = [total]


AnyRewrite = TypeVar("AnyRewrite", bound=Rewrite[Any])


def renewed(
    rewrite: AnyRewrite, match: Callable[[gs.Graph, gs.Node, Context], AnyRewrite | None], context: Context
) -> AnyRewrite | None:
    """Return a match, made anew where an earlier rewrite has moved one of its biases since."""
    if all(biased.is_current for biased in rewrite.form.biases):
        return rewrite
    return match(rewrite.scope, rewrite.node, context)
