"""Layer normalization and its root-mean-square kin as one node, or as what exporters write of means and roots.

    (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias       centered
     x         / sqrt(mean(x^2)          + epsilon) * scale (+ bias)     not centered

over the last axis.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..graph.constants import resolve
from ..graph.shapes import rank
from ..graph.types import element_type
from ..graph.walk import is_standard
from ..patterns.region import Array, IsOutput, Region, is_known, readers, regions
from ..report import Skip

_MICROSOFT = "com.microsoft"
_CENTERED = {"LayerNormalization": True, "SimplifiedLayerNormalization": False, "RMSNormalization": False}
_SKIP = {"SkipLayerNormalization": True, "SkipSimplifiedLayerNormalization": False}
# Larger scalars are no epsilon; a form without one is tried with none.
LARGEST_EPSILON = 1e-2
# Decomposed forms are compared with the formula; float64 leaves no more than this, relative to the largest value.
TOLERANCE = 1e-8
# A function this near to the formula is meant to be it, and worth a word.
NEAR_MISS = 0.1
PROBED_WIDTH = 8


@dataclass(frozen=True)
class Normalization:
    """A normalization of rows.

    Attributes:
        node: the last node of the form.
        x: what is normalized, [..., width].
        width: length of a row.
        epsilon: what is added to the mean square.
        centered: True where the row's mean is subtracted.
        scale: float64 [width].
        bias: float64 [width], or None.
        sources: the initializers that hold scale and bias.
        addends: what is added to x before (the residual; then a bias), none for most.
        total: the output that holds x + addends, or None where nobody asks for it.
        dtype: name of the numpy type of x, or None where the graph does not tell.
        output_dtype: that of the output.
    """

    node: gs.Node
    x: gs.Tensor
    width: int
    epsilon: float
    centered: bool
    scale: NDArray[np.float64]
    bias: NDArray[np.float64] | None
    sources: tuple[gs.Constant, ...]
    addends: tuple[gs.Tensor, ...] = ()
    total: gs.Variable | None = None
    dtype: str | None = None
    output_dtype: str | None = None


def match_normalization(node: gs.Node, is_output: IsOutput) -> Normalization | Skip | None:
    """Return the normalization that ends in a node, why it is none that can be rewritten, or None."""
    if node.op == "EmbedLayerNormalization":
        return Skip("a fused embedding: look-ups, their sum and its normalization in one operator")
    if node.op in _CENTERED and (is_standard(node) or node.domain == _MICROSOFT):
        return _one_node(node, is_output)
    if node.op in _SKIP and node.domain == _MICROSOFT:
        return _with_residual(node, is_output)
    if node.op in ("Add", "Sub", "Mul", "Div"):
        return _decomposed(node, is_output)
    return None


def _one_node(node: gs.Node, is_output: IsOutput) -> Normalization | Skip:
    x, axis = node.inputs[0], int(node.attrs.get("axis", -1))
    if axis not in (-1, (rank(x) or 0) - 1):
        return Skip(f"its axis is {axis}, not known to be the last one")
    if _used(node, slice(1, None), is_output):
        return Skip("its statistics are used elsewhere")
    parameters = _parameters(x, node.inputs[1], *node.inputs[2:3])
    if isinstance(parameters, Skip):
        return parameters
    return Normalization(
        node,
        x,
        parameters.scale.size,
        float(node.attrs.get("epsilon", 1e-5)),
        _CENTERED[node.op],
        *parameters,
        dtype=element_type(x),
        output_dtype=element_type(node.inputs[1]),
    )


def _with_residual(node: gs.Node, is_output: IsOutput) -> Normalization | Skip:
    inputs = [tensor if tensor.name else None for tensor in node.inputs] + [None] * 5
    centered = _SKIP[node.op]
    if _used(node, slice(1, 3), is_output):
        return Skip("its statistics are used elsewhere")
    x, residual, scale, *rest = inputs
    bias, addend = (rest[0], rest[1]) if centered else (None, rest[0])
    parameters = _parameters(x, scale, *([bias] if bias is not None else []))
    if isinstance(parameters, Skip):
        return parameters
    return Normalization(
        node,
        x,
        parameters.scale.size,
        float(node.attrs.get("epsilon", 1e-12)),
        centered,
        *parameters,
        addends=tuple(tensor for tensor in (residual, addend) if tensor is not None),
        total=node.outputs[3] if _used(node, slice(3, 4), is_output) else None,
        dtype=element_type(scale),
        output_dtype=element_type(scale),
    )


class _Parameters(NamedTuple):
    scale: Array
    bias: Array | None
    sources: tuple[gs.Constant, ...]


def _parameters(x: gs.Tensor, *tensors: gs.Tensor) -> _Parameters | Skip:
    """Return a node's constant scale and (where present) bias, as long as the rows of x where each is one number."""
    views = [resolve(tensor) for tensor in tensors if tensor.name]
    known = [view for view in views if view is not None]
    if len(known) < len(views):
        return Skip("its scale or bias is not a constant")
    scale, *rest = [np.asarray(view.values(), np.float64) for view in known]
    if scale.ndim == 0 or scale.size != scale.shape[-1] or any(bias.size != scale.size for bias in rest):
        return Skip(f"its scale has shape {list(scale.shape)}: rows along the last axis are normalized, nothing else")
    if not all(np.isfinite(vector).all() for vector in (scale, *rest)):
        return Skip("its scale or bias holds NaN or infinity")
    width = x.shape[-1] if x.shape else None
    if scale.size == 1 and width != 1:
        # One number for all of a row, however long.
        if not isinstance(width, int):
            return Skip("its scale is one number, and the length of its rows is not known")
        scale, rest = np.full(width, scale.item()), [np.full(width, bias.item()) for bias in rest]
    bias = rest[0].reshape(-1) if rest else None
    return _Parameters(scale.reshape(-1), bias, tuple(view.source for view in known))


def _used(node: gs.Node, which: slice, is_output: IsOutput) -> bool:
    return any(tensor.name and (readers(tensor) or is_output(tensor)) for tensor in node.outputs[which])


def _decomposed(node: gs.Node, is_output: IsOutput) -> Normalization | Skip | None:
    """Return the normalization that a node's region computes, found by trying it on numbers.

    Of several regions the largest counts: what follows the subtraction of the mean is a normalization, too.
    """
    found: Normalization | Skip | None = None
    for region in regions(node):
        width = _width(region) if "ReduceMean" in region.ops and region.ops & {"Sqrt", "Pow"} else None
        fit = None if width is None else _fit(region, width or PROBED_WIDTH)
        if fit is None or (isinstance(fit, Skip) and found) or _continues(node, width, is_output):
            continue
        if isinstance(fit, Skip):
            found = fit
            continue
        leak = region.leak(is_output)
        if not leak:
            found = _record(node, region, width or 0, fit)
        elif not isinstance(found, Normalization):
            found = Skip(leak)
    return found


def _width(region: Region) -> int | None:
    """Return the length of the rows that the constants fit, 0 where all are scalars, None where they do not fit."""
    constants = [constant for constant in region.constants if constant.size != 1]
    widths = {constant.shape[-1] for constant in constants}
    if len(widths) > 1 or any(constant.size != constant.shape[-1] for constant in constants):
        return None
    return widths.pop() if widths else 0


@dataclass(frozen=True)
class _Fit:
    epsilon: float
    centered: bool
    scale: Array
    bias: Array


def _fit(region: Region, width: int) -> _Fit | Skip | None:
    """Return the parameters with which the formula is the region's function, or how far the best is from it."""
    random = np.random.default_rng(11)
    # Rows near and far from zero, and some so small that the place of epsilon shows.
    spread = np.array([1, 1, 1, 3, 1e-1, 1e-2, 3e-3, 1e-3])[:, None]
    x = random.normal(size=(8, width)) * spread + spread * np.array([0, 2, -1, 0, 1, 0, 1, 0])[:, None]
    y = region(x)
    if y.shape != x.shape or not np.isfinite(y).all() or width < 2:
        return None
    scalars = {float(c.reshape(-1)[0]) for c in region.constants if c.size == 1}
    epsilons = sorted(value for value in scalars if 0 < value <= LARGEST_EPSILON)
    best, least = None, np.inf
    for epsilon, centered in itertools.product([*epsilons, 0.0], (True, False)):
        z = normalized(x, epsilon, centered)
        z_mean, y_mean = z.mean(axis=0), y.mean(axis=0)
        scale = ((z - z_mean) * (y - y_mean)).sum(axis=0) / np.square(z - z_mean).sum(axis=0)
        bias = y_mean - scale * z_mean
        residual = float(np.abs(z * scale + bias - y).max() / max(np.abs(y).max(), 1e-30))
        if residual < least:
            best, least = _Fit(epsilon, centered, scale, bias), residual
    if least <= TOLERANCE:
        return best
    near = f"like a normalization, but up to {least:.2g} of its values away from it"
    return Skip(near) if least < NEAR_MISS else None


def normalized(x: Array, epsilon: float, centered: bool) -> Array:
    """Return x over its root mean square, after its mean is subtracted where centered, along the last axis."""
    x = x - x.mean(axis=-1, keepdims=True) if centered else x
    result: Array = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + epsilon)
    return result


def _continues(node: gs.Node, width: int | None, is_output: IsOutput) -> bool:
    """Tell whether the only reader multiplies by a constant or adds one: then the form ends there or later."""
    output = node.outputs[0]
    if len(readers(output)) != 1 or is_output(output):
        return False
    reader = readers(output)[0]
    if reader.op in ("Cast", "Identity"):
        return _continues(reader, width, is_output)
    if reader.op not in ("Add", "Mul", "Sub") or not is_standard(reader):
        return False
    constants = [resolve(tensor) for tensor in reader.inputs if tensor is not output and is_known(tensor)]
    return any(view is None or view.shape == () or view.shape[-1] in (1, width or view.shape[-1]) for view in constants)


def _record(node: gs.Node, region: Region, width: int, fit: _Fit) -> Normalization | Skip:
    x = region.x
    if not width:
        last = x.shape[-1] if x.shape else None
        if not isinstance(last, int):
            return Skip("the length of its rows is not known")
        width = last
        fit = _Fit(fit.epsilon, fit.centered, np.full(width, fit.scale[0]), np.full(width, fit.bias[0]))
    negligible = 1e-9 * max(float(np.abs(fit.scale).max()), 1e-30)
    return Normalization(
        node,
        x,
        width,
        fit.epsilon,
        fit.centered,
        fit.scale,
        None if np.abs(fit.bias).max() <= negligible else fit.bias,
        tuple(source for source in region.sources if source.shape and source.shape[-1] == width),
        dtype=element_type(x),
        output_dtype=element_type(node.outputs[0]),
    )
