"""Biases of products that read a normalization, inside the weights: no addition over whole activations.

Rows x = z * g + b of a normalization have sum(z) = 0, so sum(x / g) = sum(b / g) = C is the same for every row, and

    x @ W + c = x @ (W + outer(1 / g, c) / C)

exactly. What is added to b, a vector s, is one more bias of the products, c - s @ W. It is worth its while twice: as a
constant, which makes C large where it is small, and which the normalization of a sum with x does not see; and as the
bias of the other addend of that sum, which then needs none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .base import Rewrite
from .context import Context
from .graph.linear import Linear, match_linear
from .layer_normalization.form import Normalization, match_normalization
from .moving_biases import MOVED, Biased, bias_input, biased_product, drop_bias, put_bias, renewed, small_branch
from .report import Skip

# A weight takes a bias in where it changes by at most this part of its length, whose square is the quantization noise
# that it adds, and no column by more than this part of its peak.
LARGEST_CHANGE, LARGEST_RISE = 0.1, 0.25
# Squares of larger weights, or of what is no number, do not add up in float32.
LARGEST_WEIGHT = 2.0**50
# The constant added to a normalization's bias, as a part of its scale: rows have peaks of three to ten times that.
SHIFT = 0.1


@dataclass(frozen=True)
class Reader:
    """A product that reads the normalization, and its bias, if it has a constant one."""

    linear: Linear
    biased: Biased | None


@dataclass(frozen=True)
class Absorbed:
    """A normalization and the products that take their biases in.

    Attributes:
        node: the last node of the normalization.
        index: which of its inputs is the bias.
        scale: its scale, [width].
        bias: its new bias, [width].
        shift: what was added to that, [width].
        readers: the products.
        branch: the addend of the sum with the normalization whose bias the shift makes up for, or None.
    """

    node: gs.Node
    index: int
    scale: NDArray[np.float64]
    bias: NDArray[np.float64]
    shift: NDArray[np.float64]
    readers: tuple[Reader, ...]
    branch: Biased | None

    @property
    def biases(self) -> list[Biased]:
        """What is moved or changed."""
        return [biased for biased in (*(reader.biased for reader in self.readers), self.branch) if biased]

    def change(self, reader: Reader, matrix: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what is added to a reader's weight, [k, n]: what makes up for its bias and for the shift."""
        linear, biased = reader.linear, reader.biased
        rest = np.zeros(linear.n) if biased is None else biased.bias.astype(np.float64) / linear.alpha
        rest -= self.shift @ matrix
        return np.outer(1 / self.scale, rest) / np.sum(self.bias / self.scale)

    def fits(self) -> bool:
        """Tell whether all readers' weights would change little."""
        return bool(np.sum(self.bias / self.scale)) and all(map(self._fits, self.readers))

    def _fits(self, reader: Reader) -> bool:
        # In half precision the sum of squares would overflow.
        matrix = reader.linear.matrix().astype(np.float32, copy=False)
        peak = np.abs(matrix).max(axis=0)
        if not np.all(peak < LARGEST_WEIGHT):
            return False
        change = self.change(reader, matrix)
        small = np.linalg.norm(change) <= LARGEST_CHANGE * np.linalg.norm(matrix)
        return bool(small and np.all(np.abs(change).max(axis=0) <= LARGEST_RISE * peak))


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Rewrite[Absorbed] | None:
    """Return the normalization whose products can do without biases."""
    x = node.outputs[0] if node.outputs else None
    if not context.lowering.integer_rows or x is None or node.op not in ("LayerNormalization", "Add"):
        return None
    readers = tuple(reader for reader in (_reader(each, x, context) for each in x.outputs) if reader)
    if not any(reader.biased for reader in readers):
        return None
    form = match_normalization(node, context.is_output)
    if not isinstance(form, Normalization) or form.bias is None or not form.centered or not np.all(form.scale):
        return None
    index = bias_input(node, form.bias)
    if index is None or any(reader.linear.k != len(form.scale) for reader in readers):
        return None
    known = {id(reader.linear.node) for reader in readers}
    others = [each for each in x.outputs if id(each) not in known]
    inner = not context.is_output(x)
    constant = inner and all(_is_normalized(each, context) for each in others)
    alone = inner and [each.op for each in others] == ["Add"]
    branch = small_branch(others[0], x, form.scale, context) if alone else None
    for moved in [branch, None] if branch else [None]:
        absorbed = _absorbed(form, index, readers, moved, constant)
        if absorbed.fits():
            return Rewrite(scope, absorbed)
    return None


def replace(context: Context, matches: list[Rewrite[Absorbed]]) -> Skip | None:
    """Put the biases of one match into the weights."""
    rewrite = renewed(matches[0], match, context)
    if rewrite is None:
        return MOVED
    form = rewrite.form
    at = context.editor.before(rewrite.scope, form.node)
    for reader in form.readers:
        linear, matrix = reader.linear, reader.linear.matrix()
        changed = (matrix + form.change(reader, matrix)).astype(linear.weight.dtype)
        stored = np.ascontiguousarray(changed.T) if linear.transpose_weight else changed
        absorbed = at.constant(stored, f"{linear.weight.source.name}.absorbed")
        linear.node.inputs[1] = context.changed(absorbed, linear.weight.source)
        if reader.biased:
            drop_bias(reader.biased)
    if form.shift.any():
        put_bias(at, form.node, form.index, form.bias)
    if form.branch:
        drop_bias(form.branch)
    return None


def _absorbed(
    form: Normalization, index: int, readers: tuple[Reader, ...], branch: Biased | None, constant: bool
) -> Absorbed:
    """Return what comes of a normalization whose bias takes in that of the branch, and a constant where it may."""
    scale, bias = form.scale, form.bias
    assert bias is not None
    shift = np.zeros(len(bias)) if branch is None else branch.bias.astype(np.float64)
    if constant:
        total = np.sum((bias + shift) / scale)
        shift += np.copysign(SHIFT * np.abs(scale).mean(), total * np.sum(1 / scale))
    if not shift.any():
        readers = tuple(reader for reader in readers if reader.biased)
    return Absorbed(form.node, index, scale, bias + shift, shift, readers, branch)


def _reader(node: gs.Node, x: gs.Tensor, context: Context) -> Reader | None:
    """Return the product of x and a weight of its own that a node is."""
    linear = match_linear(node)
    if not isinstance(linear, Linear) or linear.batch or linear.x is not x or linear.transpose_x or context.kept(node):
        return None
    return Reader(linear, biased_product(node, context)) if len(linear.weight.source.outputs) == 1 else None


def _is_normalized(total: gs.Node, context: Context) -> bool:
    """Tell whether a node is a sum that only centered normalizations read."""
    if total.op != "Add" or context.is_output(total.outputs[0]):
        return False
    after = [match_normalization(node, context.is_output) for node in total.outputs[0].outputs]
    # A fused sum and normalization would give the constant away in its output of the sum.
    return all(isinstance(form, Normalization) and form.centered and not form.addends for form in after)
