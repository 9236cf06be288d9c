"""Biases where they cost nothing: fewer additions over whole activations, the same function.

key       q @ (k + b).T = q @ k.T + q @ b, which is the same for every key: Softmax does not see it. b is dropped,
          unless scores pass a tanh (softcap).
value     weights @ (v + b) = weights @ v + b, as the weights of a row sum to one: with W the output projection,
          b @ W is added to its bias. A token that sees no key, padding that is, has no weights: its answer changes.
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
from .graph.walk import is_standard
from .layer_normalization.form import Normalization, match_normalization
from .moving_biases import (
    MOVED,
    Biased,
    bias_input,
    biased_product,
    drop_bias,
    only_for,
    put_bias,
    renewed,
    small_branch,
)
from .report import Skip

# Inputs of Attention: query, key, value, mask.
KEY, VALUE, MOST_INPUTS = 1, 2, 4


@dataclass(frozen=True)
class Values:
    """An Attention whose keys or values have a bias that can move; `projection` takes that of the values."""

    node: gs.Node
    key: Biased | None
    value: Biased | None
    projection: Biased | None

    @property
    def biases(self) -> list[Biased]:
        """What is moved or changed."""
        return [biased for biased in (self.key, self.value, self.projection) if biased]


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

    @property
    def biases(self) -> list[Biased]:
        """What is moved or changed."""
        return [self.branch, *self.products]


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Values] | Rewrite[Residual] | None:
    """Return the Attention or the normalization around which biases can move."""
    if not context.lowering.integer_rows:
        return None  # a bias is part of the product, or what is added is coded on the way
    if node.op == "Attention" and is_standard(node):
        values = _values(node, context)
        return Rewrite(scope, values) if values else None
    residual = _residual(node, context)
    return Rewrite(scope, residual) if residual else None


def replace(context: Context, matches: list[Rewrite[Values] | Rewrite[Residual]]) -> Skip | None:
    """Move the biases of one match."""
    rewrite = renewed(matches[0], match, context)
    if rewrite is None:
        return MOVED
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
    plain = (
        not node.attrs.get("is_causal")
        and not node.attrs.get("softcap")
        and len(node.inputs) <= MOST_INPUTS
        and len(node.outputs) == 1
    )
    if not rows or not plain:
        return None
    key, value = (only_for(node, node.inputs[index], context) for index in (KEY, VALUE))
    y = node.outputs[0]
    readers = [] if context.is_output(y) else y.outputs
    projection = biased_product(readers[0], context) if len(readers) == 1 else None
    fits = value is not None and projection is not None and projection.linear.k == len(value.bias)
    value, projection = (value, projection) if fits else (None, None)
    return Values(node, key, value, projection) if key or value else None


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
    branch, index = small_branch(sums[0], x, form.scale, context), bias_input(node, form.bias)
    return None if branch is None or index is None else Residual(node, index, form.bias, branch, found)


def _feeds_attention(rows: gs.Tensor) -> bool:
    """Tell whether rows are a query, keys or values, whose biases may move as well."""
    return any(
        reader.op == "Attention" or (reader.op == "Reshape" and _feeds_attention(reader.outputs[0]))
        for reader in rows.outputs
    )
