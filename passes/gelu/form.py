"""Gelu and its kin as one node, or as what exporters write of Erf, Tanh and Sigmoid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.types import element_type
from ..graph.walk import is_standard
from ..patterns.region import IsOutput, Region, regions
from ..report import Skip
from .function import CURVES

# Constants as float16 move a function by less than this; two of the functions are 4.7e-4 apart, the nearest is taken.
TOLERANCE = 5e-4
# A function this near to one of them is meant to be one, and worth a word.
NEAR_MISS = 0.5
PROBES = np.linspace(-8, 8, 65)

_ONE_NODE = {
    ("", "Gelu"): "gelu",
    ("com.microsoft", "Gelu"): "gelu",
    ("com.microsoft", "BiasGelu"): "gelu",
    ("com.microsoft", "FastGelu"): "gelu_tanh",
    ("com.microsoft", "QuickGelu"): "quick_gelu",
    ("", "Swish"): "silu",
}
_CURVES = {"Erf", "Tanh", "Sigmoid", "Exp"}


@dataclass(frozen=True)
class Activation:
    """An activation function of one tensor.

    Attributes:
        node: the last node of the form.
        kind: gelu, gelu_tanh, quick_gelu or silu.
        x: its input.
        bias: what is added to x before, or None.
        dtype: name of the numpy type of x, or None where the graph does not tell.
    """

    node: gs.Node
    kind: str
    x: gs.Tensor
    bias: gs.Tensor | None
    dtype: str | None


def match_activation(node: gs.Node, is_output: IsOutput) -> Activation | Skip | None:
    """Return the activation that ends in a node, why it is none that can be rewritten, or None."""
    kind = _ONE_NODE.get(("" if is_standard(node) else node.domain, node.op))
    if kind is not None:
        return _one_node(node, kind)
    if node.op not in ("Mul", "Div"):
        return None
    near: str | None = None
    for region in regions(node):
        if not region.ops & _CURVES or not _is_elementwise(region):
            continue
        kind, distance = _nearest(region)
        if distance <= TOLERANCE:
            leak = region.leak(is_output)
            return Skip(leak) if leak else Activation(node, kind, region.x, None, element_type(region.x))
        if distance <= NEAR_MISS and near is None:
            near = f"like {kind}, but up to {distance:.2g} away from it: another constant"
    return Skip(near) if near else None


def _one_node(node: gs.Node, kind: str) -> Activation | Skip:
    attrs, inputs = node.attrs, node.inputs
    if attrs.get("approximate", "none") == "tanh":
        kind = "gelu_tanh"
    if node.op in ("QuickGelu", "Swish"):
        alpha = float(attrs.get("alpha", 1.702 if node.op == "QuickGelu" else 1.0))
        known = {1.0: "silu", 1.702: "quick_gelu"}
        found = next((name for value, name in known.items() if math.isclose(alpha, value, rel_tol=1e-4)), None)
        if found is None:
            return Skip(f"its alpha is {alpha:g}, neither 1 nor 1.702")
        kind = found
    bias = inputs[1] if len(inputs) > 1 and inputs[1].name else None
    return Activation(node, kind, inputs[0], bias, element_type(inputs[0]))


def _is_elementwise(region: Region) -> bool:
    reduces = any(node.op.startswith("Reduce") for node in region.nodes)
    return not reduces and all(constant.size == 1 for constant in region.constants)


def _nearest(region: Region) -> tuple[str, float]:
    """Return the nearest function and the largest difference from it."""
    y = np.broadcast_to(np.nan_to_num(region(PROBES), nan=np.inf).reshape(-1), PROBES.shape)
    distances = {kind: float(np.abs(y - function(PROBES)).max()) for kind, function in CURVES.items()}
    kind = min(distances, key=distances.__getitem__)
    return kind, distances[kind]
