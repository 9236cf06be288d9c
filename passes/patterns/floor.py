"""How far below zero an activation can fall, where the operator that makes it tells."""

from __future__ import annotations

from typing import NamedTuple

import onnx_graphsurgeon as gs

from ..gelu.form import Activation, match_activation
from ..graph.operators import Trait, traits_of
from .region import IsOutput

# Least values, rounded down: of Gelu -0.16997 (tanh form -0.17004), x * sigmoid(1.702 x) -0.16361, SiLU -0.27846.
FLOORS = {"gelu": -0.1701, "gelu_tanh": -0.1701, "quick_gelu": -0.1637, "silu": -0.2785}


class Lowest(NamedTuple):
    """A bound that no value of an activation is below, and the tensor that the activation is a function of."""

    floor: float
    x: gs.Tensor


def lowest(x: gs.Tensor, is_output: IsOutput) -> Lowest | None:
    """Return a bound that no value of an activation is below, or None where none is known."""
    if not x.inputs:
        return None
    node = x.inputs[0]
    if Trait.NOT_NEGATIVE in traits_of(node):
        return Lowest(0.0, node.inputs[0])
    activation = match_activation(node, is_output)
    return Lowest(FLOORS[activation.kind], activation.x) if isinstance(activation, Activation) else None
