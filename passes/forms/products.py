"""Products: with transpositions, factors and functions inside, or with the constant on the left."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.constants import resolve
from ..graph.editor import Emitter
from ..graph.shapes import rank
from ..graph.types import element_type
from ..report import Skip
from .base import Writer, inputs_of

MATRIX = 2
# Below this a constant on the left stays there: two transpositions would weigh more.
SMALLEST_BYTES = 1024
# Functions that a product applies to its result, and what their attributes are called there.
_FUNCTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"), ()),
    **dict.fromkeys(("Elu", "LeakyRelu", "ThresholdedRelu"), ("alpha",)),
    "HardSigmoid": ("alpha", "beta"),
}


def fused_matmul(node: gs.Node) -> Writer | Skip:
    """Return alpha * a @ b, each transposed where asked: FusedMatMul, also with batches moved."""
    perms: list[list[int] | None] = []
    for number, letter in enumerate("AB"):
        perm = _permutation(node, number, letter)
        if isinstance(perm, Skip):
            return perm
        perms.append(perm)
    alpha = float(node.attrs.get("alpha", 1.0))

    def write(at: Emitter) -> None:
        a, b = (_transpose(at, x, perm) for x, perm in zip(node.inputs, perms, strict=True))
        y = at.op("MatMul", a, b, name=f"{node.outputs[0].name}.product")
        at.deliver(scaled(at, y, alpha, node), node)

    return write


def _permutation(node: gs.Node, number: int, letter: str) -> list[int] | Skip | None:
    matrix, batch = (bool(node.attrs.get(f"{name}{letter}", 0)) for name in ("trans", "transBatch"))
    if not matrix and not batch:
        return None
    axes = rank(node.inputs[number])
    if axes is None:
        return Skip(f"the rank of its input {node.inputs[number].name} is not known")
    if axes < MATRIX:
        return None
    order = list(range(axes))
    if batch:
        order = [*order[1:-1], order[0], order[-1]]
    return [*order[:-2], order[-1], order[-2]] if matrix else order


def fused_gemm(node: gs.Node) -> Writer | Skip:
    """Return Gemm and the function of its result."""
    function = node.attrs.get("activation", "")
    if function not in _FUNCTIONS:
        return Skip(f"its activation is {function!r}")
    after = {
        name: node.attrs[f"activation_{name}"] for name in _FUNCTIONS[function] if f"activation_{name}" in node.attrs
    }
    attrs = {name: value for name, value in node.attrs.items() if not name.startswith("activation")}

    def write(at: Emitter) -> None:
        y = at.op("Gemm", *inputs_of(node, 3), name=f"{node.outputs[0].name}.product", **attrs)
        at.deliver(at.op(function, y, name=node.outputs[0].name, **after), node)

    return write


def left_matmul(node: gs.Node) -> Writer | Skip | None:
    """Return W @ x with a constant W as (x.T @ W.T).T."""
    x = node.inputs[1]
    if not _is_left(node):
        return None
    axes = rank(x)
    if axes is None or axes < MATRIX:
        return Skip("its constant is on the left of " + ("a vector" if axes == 1 else "a tensor of unknown rank"))
    swap = [*range(axes - 2), axes - 1, axes - 2]

    def write(at: Emitter) -> None:
        weight = _transpose(at, node.inputs[0], [1, 0])
        y = at.op("MatMul", _transpose(at, x, swap), weight, name=f"{node.outputs[0].name}.columns")
        at.deliver(_transpose(at, y, swap), node)

    return write


def left_gemm(node: gs.Node) -> Writer | None:
    """Return alpha * W @ x + beta * c with a constant W the same way."""
    if not _is_left(node):
        return None
    weight, x, bias = inputs_of(node, 3)
    alpha, beta = (float(node.attrs.get(name, 1.0)) for name in ("alpha", "beta"))

    def write(at: Emitter) -> None:
        rows = x if node.attrs.get("transB", 0) else _transpose(at, x, [1, 0])
        columns = weight if node.attrs.get("transA", 0) else _transpose(at, weight, [1, 0])
        y = at.op("MatMul", rows, columns, name=f"{node.outputs[0].name}.columns")
        y = scaled(at, _transpose(at, y, [1, 0]), alpha, node)
        if bias is not None:
            y = at.op("Add", y, scaled(at, bias, beta, node), name=f"{node.outputs[0].name}.biased")
        at.deliver(y, node)

    return write


def _is_left(node: gs.Node) -> bool:
    weight = resolve(node.inputs[0])
    matrix = weight is not None and weight.is_float and len(weight.shape) == MATRIX
    return matrix and weight is not None and weight.nbytes >= SMALLEST_BYTES and resolve(node.inputs[1]) is None


def scaled(at: Emitter, x: Any, factor: float, node: gs.Node) -> Any:
    """Return x times a number."""
    if factor == 1:
        return x
    number = at.constant(np.array(factor, element_type(x) or "float32"), "factor")
    return at.op("Mul", x, number, name=f"{node.outputs[0].name}.scaled", dtype=x.dtype)


def _transpose(at: Emitter, x: Any, perm: list[int] | None) -> Any:
    if perm is None:
        return x
    where = at.at_load() if resolve(x) is not None else at
    return where.op("Transpose", x, name=f"{x.name}.transposed", dtype=x.dtype, perm=perm)
