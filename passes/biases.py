"""Biases where they cost nothing: fewer additions over whole activations, the same function.

key       q @ (k + b).T = q @ k.T + q @ b, which is the same for every key: Softmax does not see it. b is dropped.
value     weights @ (v + b) = weights @ v + b, as the weights of a row sum to one: with W the output projection,
          b @ W is added to its bias.
residual  x = normalize(...) is read by products x @ W + c, and by the sum x + (y + b): with x' = x + b, which is
          no more than another bias of the normalization, they are x' @ W + (c - b @ W) and x' + y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .base import Rewrite
from .context import Context
from .graph.constants import resolve
from .graph.editor import Emitter, is_standard, redirect
from .graph.linear import Linear, added_bias, as_vector, match_linear
from .lowerings.table import DENSE
from .patterns.normalization import Normalization, match_normalization
from .report import Skip

# A bias moves into a normalization where it is at most this part of the scale, so that rows keep their peaks, and with
# them the steps in which they are quantized.
LARGEST_PART = 0.25
# Inputs of Attention: query, key, value, mask.
KEY, VALUE, MOST_INPUTS = 1, 2, 4
BIAS_OF_GEMM = BIAS_OF_NORMALIZATION = 2
MATRIX = 2


@dataclass(frozen=True)
class Biased:
    """A product with a constant weight and a constant bias.

    Attributes:
        linear: the product.
        bias: what is added, [n].
        holder: the Add, or the Gemm itself.
        index: which of the holder's inputs is the bias.
    """

    linear: Linear
    bias: NDArray[np.floating]
    holder: gs.Node
    index: int

    @property
    def output(self) -> gs.Tensor:
        """The sum, [..., n]."""
        return self.holder.outputs[0]

    def through(self, vector: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return what a vector [k] added to the activation adds to the sum, [n]."""
        return self.linear.alpha * (vector.astype(np.float64) @ self.linear.matrix())


@dataclass(frozen=True)
class Values:
    """An Attention whose keys or values have a bias that can move; `projection` takes that of the values."""

    node: gs.Node
    key: Biased | None
    value: Biased | None
    projection: Biased | None


@dataclass(frozen=True)
class Residual:
    """A normalization whose readers are products with biases, and the sum with `branch`, whose bias can move.

    Attributes:
        node: the last node of the normalization.
        index: which of its inputs is the bias.
        bias: that bias, [width].
        branch: what it is summed up with.
        products: the other readers.
    """

    node: gs.Node
    index: int
    bias: NDArray[np.float64]
    branch: Biased
    products: tuple[Biased, ...]


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Values] | Rewrite[Residual] | None:
    """Return the Attention or the normalization around which biases can move."""
    if context.options.lowering not in DENSE:
        return None  # a bias is part of the product, or what is added is coded on the way
    if node.op == "Attention" and is_standard(node):
        values = _values(node, context)
        return Rewrite(scope, values) if values else None
    residual = _residual(node, context)
    return Rewrite(scope, residual) if residual else None


def replace(context: Context, matches: list[Rewrite[Values] | Rewrite[Residual]]) -> Skip | None:
    """Move the biases of one match."""
    (rewrite,) = matches
    at, form = context.editor.before(rewrite.scope, rewrite.node), rewrite.form
    if isinstance(form, Residual):
        moved = form.branch.bias
        put_bias(at, form.node, form.index, form.bias + moved)
        for product in form.products:
            put_bias(at, product.holder, product.index, product.bias - product.through(moved))
        drop_bias(form.branch)
        return None
    if form.key:
        drop_bias(form.key)
    if form.value and form.projection:
        projection = form.projection
        put_bias(at, projection.holder, projection.index, projection.bias + projection.through(form.value.bias))
        drop_bias(form.value)
    return None


def _values(node: gs.Node, context: Context) -> Values | None:
    """Return an Attention over rows [b, s, h * d] whose keys or values have a bias."""
    rows = "q_num_heads" in node.attrs and node.attrs["q_num_heads"] == node.attrs.get("kv_num_heads")
    plain = not node.attrs.get("is_causal") and len(node.inputs) <= MOST_INPUTS and len(node.outputs) == 1
    if not rows or not plain:
        return None
    key, value = (_only_for(node, node.inputs[index], context) for index in (KEY, VALUE))
    y = node.outputs[0]
    readers = [] if context.is_output(y) else y.outputs
    projection = biased_product(readers[0], context) if len(readers) == 1 else None
    fits = value is not None and projection is not None and projection.linear.k == len(value.bias)
    value, projection = (value, projection) if fits else (None, None)
    return Values(node, key, value, projection) if key or value else None


def _only_for(node: gs.Node, rows: gs.Tensor, context: Context) -> Biased | None:
    """Return the product with a bias that makes rows for a node and for nothing else."""
    found = _product_behind(rows, context)
    return found if found and [id(reader) for reader in rows.outputs] == [id(node)] else None


def _residual(node: gs.Node, context: Context) -> Residual | None:
    x = node.outputs[0] if node.outputs else None
    if x is None or node.op not in ("LayerNormalization", "Add") or context.is_output(x):
        return None
    sums = [reader for reader in x.outputs if reader.op == "Add"]
    if len(sums) != 1:
        return None
    products = [biased_product(reader, context) for reader in x.outputs if reader is not sums[0]]
    found = tuple(product for product in products if product and not _feeds_attention(product.output))
    if len(found) < len(products) or any(product.linear.x is not x for product in found):
        return None
    form = match_normalization(node, context.is_output)
    if not isinstance(form, Normalization) or form.bias is None:
        return None
    branch = small_branch(sums[0], x, form.scale, context)
    return Residual(node, bias_input(node, form.width), form.bias, branch, found) if branch else None


def small_branch(total: gs.Node, x: gs.Tensor, scale: NDArray[np.float64], context: Context) -> Biased | None:
    """Return the product that x is added to, if its bias may move into the normalization, of this scale, that x is."""
    branch = _only_for(total, total.inputs[1] if total.inputs[0] is x else total.inputs[0], context)
    if branch is None or len(branch.bias) != len(scale):
        return None
    return branch if np.abs(branch.bias).max(initial=0) <= LARGEST_PART * np.abs(scale).max(initial=0) else None


def _feeds_attention(rows: gs.Tensor) -> bool:
    """Tell whether rows are a query, keys or values, whose biases may move as well."""
    return any(
        reader.op == "Attention" or (reader.op == "Reshape" and _feeds_attention(reader.outputs[0]))
        for reader in rows.outputs
    )


def _product_behind(rows: gs.Tensor, context: Context) -> Biased | None:
    """Return the product and its bias that a tensor is."""
    maker = rows.inputs[0] if rows.inputs and not context.is_output(rows) else None
    if maker is not None and maker.op == "Add":
        maker = next((x.inputs[0] for x in maker.inputs if x.inputs and x.inputs[0].op == "MatMul"), None)
    found = biased_product(maker, context) if maker is not None else None
    return found if found and found.output is rows else None


def biased_product(node: gs.Node, context: Context) -> Biased | None:
    """Return a product with a constant weight and a constant bias."""
    linear = match_linear(node)
    if not isinstance(linear, Linear) or linear.batch or linear.transpose_x or context.kept(node):
        return None
    if node.op == "Gemm":
        vector = None if linear.bias is None else as_vector(linear.bias, linear.n)
        whole = vector is not None and linear.beta == 1
        return Biased(linear, vector, node, BIAS_OF_GEMM) if vector is not None and whole else None
    added = None if context.is_output(node.outputs[0]) else added_bias(linear)
    if added is None or context.kept(added[1]):
        return None
    vector, add = added
    return Biased(linear, vector, add, 1 if add.inputs[0] is node.outputs[0] else 0)


def bias_input(node: gs.Node, width: int) -> int:
    """Return which input of the last node of a normalization is its bias."""
    if node.op == "LayerNormalization":
        return BIAS_OF_NORMALIZATION
    return next(index for index, tensor in enumerate(node.inputs) if as_vector(tensor, width) is not None)


def put_bias(at: Emitter, holder: gs.Node, index: int, bias: NDArray[np.floating]) -> None:
    """Give a node another bias, of the type and under a name like that of the one before."""
    old = holder.inputs[index]
    view = resolve(old)
    assert view is not None
    holder.inputs[index] = at.constant(np.asarray(bias).astype(view.dtype), f"{old.name}.moved")


def drop_bias(biased: Biased) -> None:
    """Let what reads the sum read the product."""
    if biased.holder.op == "Gemm":
        biased.holder.inputs = biased.holder.inputs[:BIAS_OF_GEMM]
    else:
        redirect(biased.output, biased.linear.node.outputs[0])
