"""Endings: what follows a product, computed in its call: BlockMatMul8Bias, BlockMatMul4TrellisBiasGelu, ...

    q, row_scale, ... -- BlockMatMul -- Add(bias [n]) -- Gelu -> y [..., n]

Bodies are the nodes that would stand behind the call. A library of kernels computes them while results are at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..gelu.function import CURVES
from . import block_matmul
from .function import FUNCTIONS, Function, call
from .unpack import PACKINGS

Floats = NDArray[np.float32]
# What a kernel's Gelu and its kin err by at most, beside 4 units in the last place.
CURVE_BOUND = 2e-7


@dataclass(frozen=True)
class Ending:
    """One step behind a product.

    Attributes:
        name: what it adds to the name of a function.
        body: its nodes, from the value {x} to the value {y}.
        summary: what it adds to the line on a function.
        reference: what it computes of float32 x [..., n] and of the call's inputs and attributes by name.
        given: the input that it adds to a call, if any.
    """

    name: str
    body: str
    summary: str
    reference: Callable[[Floats, Mapping[str, Any]], Floats]
    given: str = ""


def _curve(name: str, kind: str, body: str) -> Ending:
    def reference(x: Floats, _: Mapping[str, Any]) -> Floats:
        return np.asarray(CURVES[kind](x.astype(np.float64)), np.float32)

    return Ending(name, body, kind, reference)


def _sum(name: str, given: str, summary: str) -> Ending:
    def reference(x: Floats, inputs: Mapping[str, Any]) -> Floats:
        return np.asarray(x + inputs[given], np.float32)

    return Ending(name, f"{{y}} = Add ({{x}}, {given})", summary, reference, given)


def _quick_gelu(x: Floats, inputs: Mapping[str, Any]) -> Floats:
    wide = x.astype(np.float64)
    return np.asarray(wide * np.exp(-np.logaddexp(0, -inputs["alpha"] * wide)), np.float32)


BIAS = _sum("Bias", "bias", "bias [n]")
RESIDUAL = _sum("Residual", "residual", "residual [..., n]")
RELU = Ending("Relu", "{y} = Relu ({x})", "Relu", lambda x, _: np.maximum(x, np.float32(0)))
GELU = _curve("Gelu", "gelu", '{y} = Gelu <approximate = "none"> ({x})')
GELU_TANH = _curve("GeluTanh", "gelu_tanh", '{y} = Gelu <approximate = "tanh"> ({x})')
SILU = _curve("Silu", "silu", "gate = Sigmoid ({x}) {y} = Mul ({x}, gate)")
QUICK_GELU = Ending(
    "QuickGelu", "{y} = com.microsoft.QuickGelu <alpha: float = @alpha> ({x})", "x * sigmoid(alpha * x)", _quick_gelu
)
# What may come last, behind a bias or none.
LAST = (RELU, GELU, GELU_TANH, SILU, QUICK_GELU, RESIDUAL)
# All that follows a product in one call, in order.
CHAINS = ((BIAS,), *((last,) for last in LAST), *((BIAS, last) for last in LAST))


def with_endings(product: Function, endings: Iterable[Ending], nested: bool) -> Function:
    """Return the function that computes a product, by a call where `nested`, and what follows it."""
    endings = tuple(endings)
    values = ["product", *(f"with_{ending.name.lower()}" for ending in endings[:-1]), product.outputs]
    steps = [ending.body.format(x=x, y=y) for ending, x, y in zip(endings, values[:-1], values[1:], strict=True)]
    return Function(
        product.name + "".join(ending.name for ending in endings),
        ", ".join([product.inputs, *(ending.given for ending in endings if ending.given)]),
        product.outputs,
        "\n".join([f"product = {call(product)}", *steps]),
        ", ".join([product.summary, *(ending.summary for ending in endings)]),
        product.dtypes,
        product.axes,
        calls=(product,),
        nested=nested,
    )


def reference(product: Floats, endings: Iterable[Ending], inputs: Mapping[str, Any]) -> Floats:
    """Return what follows a product [..., n]: sums round once each, in order; curves are float64, rounded."""
    for ending in endings:
        product = ending.reference(product, inputs)
    return product


# Products, and whether they may be called from within a function.
_PRODUCTS = {block_matmul.INT8.name: True} | {
    block_matmul.BY_SUFFIX[suffix].name: not packing.has_int4 for suffix, packing in PACKINGS.items()
}
# The function that follows another by an ending, by both names.
FOLLOWED = {
    (name + "".join(ending.name for ending in chain[:-1]), chain[-1].name): with_endings(FUNCTIONS[name], chain, nested)
    for name, nested in _PRODUCTS.items()
    for chain in CHAINS
}
