"""Einsum of an activation and a constant that is a product: transpositions around MatMul.

    x [.., free.., summed..], weight [summed.., columns..] -- Einsum -> [free.., columns..], axes in any order
    x -- Transpose, Reshape -- MatMul(weight as [k, n]) -- Reshape, Transpose

Axes that both have and the result keeps (experts, groups) are a batch of matrices.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.constants import ConstantView, resolve
from ..graph.editor import Emitter
from ..graph.shapes import rank
from ..lowerings.operators import reshape
from ..report import Skip
from .base import Writer


@dataclass(frozen=True)
class _Product:
    """The letters of a product by what becomes of them, in the order in which they are written."""

    x: str
    weight: str
    output: str

    @property
    def batch(self) -> str:
        return "".join(c for c in self.output if c in self.x and c in self.weight)

    @property
    def summed(self) -> str:
        return "".join(c for c in self.x if c in self.weight and c not in self.output)

    @property
    def free(self) -> str:
        return "".join(c for c in self.output if c in self.x and c not in self.weight)

    @property
    def columns(self) -> str:
        return "".join(c for c in self.output if c in self.weight and c not in self.x)

    @property
    def is_whole(self) -> bool:
        """Tell whether every letter stands once in each term and is of one of the four kinds."""
        terms = (self.x, self.weight, self.output)
        known = set(self.batch + self.summed + self.free + self.columns)
        return all(len(set(term)) == len(term) and set(term) <= known for term in terms)


def einsum(node: gs.Node) -> Writer | Skip | None:
    """Return the product that an Einsum with one constant is."""
    constants = [resolve(tensor) for tensor in node.inputs]
    if all(view is None for view in constants):
        return None
    equation = str(node.attrs.get("equation", "")).replace(" ", "")
    if len(constants) != 2 or None not in constants:
        return Skip(f"{equation} has {len(constants)} terms, {sum(v is not None for v in constants)} of them constant")
    which = 0 if constants[1] is None else 1
    weight, x = constants[which], node.inputs[1 - which]
    assert weight is not None
    product = _parse(equation, which, x, weight)
    if isinstance(product, Skip):
        return product
    sizes = dict(zip(product.weight, weight.shape, strict=True))
    stretched = next((c for c in product.batch + product.summed if sizes[c] == 1), None)
    if stretched or not product.summed or not weight.is_float:
        return Skip(f"{equation} with a constant of {weight.dtype} and shape {list(weight.shape)} is no product")
    return lambda at: _write(at, node, x, node.inputs[which], product, sizes)


def _parse(equation: str, which: int, x: gs.Tensor, weight: ConstantView) -> _Product | Skip:
    """Return the letters of a product, an ellipsis of the activation spelled out."""
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not arrow or "..." in terms[which]:
        return Skip(
            f"{equation} is not followed: it says nothing of its result, or stands for any axes of the constant"
        )
    term = terms[1 - which]
    if "..." in term:
        axes = rank(x)
        if axes is None:
            return Skip(f"{equation}: the rank of {x.name} is not known")
        spare = [c for c in string.ascii_letters if c not in equation][: axes - len(term.replace("...", ""))]
        term, output = (text.replace("...", "".join(spare)) for text in (term, output))
    product = _Product(term, terms[which], output)
    if "." in term + output or not product.is_whole or len(terms[which]) != len(weight.shape):
        return Skip(f"{equation} is no product of matrices")
    return product


def _write(at: Emitter, node: gs.Node, x: Any, constant: gs.Tensor, product: _Product, sizes: dict[str, int]) -> None:
    name, batch, free = node.outputs[0].name, product.batch, product.free
    # Rows of a batch are its last free axis; further ones come before the batch.
    outer = free[:-1] + batch + free[-1:] if batch else free
    x = _order(at, x, product.x, outer + product.summed, name)
    if len(product.summed) > 1:
        x = reshape(at, x, (*[0] * len(outer), prod(sizes[c] for c in product.summed)), f"{name}.rows")
    if batch and not free:
        x = at.op("Unsqueeze", x, at.constant(np.array([-2], np.int64), "row_axis"), name=f"{name}.row")
    y = at.op("MatMul", x, _weight(at, constant, product, sizes), name=f"{name}.product")
    if batch and not free:
        y = at.op("Squeeze", y, at.constant(np.array([-2], np.int64), "row_axis"), name=f"{name}.columns")
    if len(product.columns) != 1:
        y = reshape(at, y, (*[0] * len(outer), *(sizes[c] for c in product.columns)), f"{name}.apart")
    y = _order(at, y, outer + product.columns, product.output, name)
    at.deliver(y, node)


def _weight(at: Emitter, constant: gs.Tensor, product: _Product, sizes: dict[str, int]) -> gs.Tensor:
    """Return the constant as [*batch, k, n]."""
    load = at.at_load()
    name = f"{constant.name}.matrix"
    order = product.batch + product.summed + product.columns
    weight = _order(load, constant, product.weight, order, name)
    shape = [sizes[c] for c in product.batch]
    shape += [prod(sizes[c] for c in product.summed), prod(sizes[c] for c in product.columns)]
    return weight if len(product.summed) == len(product.columns) == 1 else reshape(load, weight, tuple(shape), name)


def _order(at: Emitter, x: Any, has: str, wants: str, name: str) -> Any:
    """Return x with its axes in another order."""
    if has == wants:
        return x
    return at.op("Transpose", x, name=f"{name}.order", dtype=x.dtype, perm=[has.index(c) for c in wants])
