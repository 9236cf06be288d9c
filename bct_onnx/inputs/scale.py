"""The mean and size of the features that a model expects, from the first constants that they meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bct_onnx.arrays import Array
from bct_onnx.inputs.flow import FlatNode, Flow
from bct_onnx.inputs.roles import ModelInput, Role

# Returns the values of an initializer by its name, None where there is none of that name.
Values = Callable[[str], Array | None]
# Rows of a first weight differ by less than this in all models whose features are of one size.
LEAST_RANGE = 64.0
# Values of a constant that standardizes: one, or one a channel.
MOST_CHANNELS = 4096


def with_scales(inputs: Sequence[ModelInput], flow: Flow, values: Values | None) -> tuple[ModelInput, ...]:
    """Return the inputs with the mean and the scale that a standardization or a first weight asks of their numbers."""
    if values is None:
        return tuple(inputs)
    return tuple(_scaled(entry, flow, values) if entry.role is Role.NUMBERS else entry for entry in inputs)


def _scaled(entry: ModelInput, flow: Flow, values: Values) -> ModelInput:
    for use in flow.follow(entry.name):
        if (found := _standardized(use.node, flow, values)) or (found := _of_weight(use.node, values)):
            mean, scale = found
            return replace(entry, mean=mean, scale=scale)
    return entry


def _standardized(node: FlatNode, flow: Flow, values: Values) -> tuple[Array, Array] | None:
    """Return what (x - mean) / scale, or a BatchNormalization, in front of everything else takes away."""
    if node.op == "BatchNormalization":
        mean, variance = values(node.inputs[3]), values(node.inputs[4])
        return None if mean is None or variance is None else (mean, np.sqrt(np.maximum(variance, 0)))
    mean = _constant(node, values) if node.op == "Sub" else np.zeros(1)
    dividing = node if node.op in ("Div", "Mul") else _only_reader(node, flow)
    if mean is None or dividing is None or dividing.op not in ("Div", "Mul"):
        return None
    factor = _constant(dividing, values)
    if factor is None or not np.all(np.abs(factor) > np.finfo(np.float32).tiny):
        return None
    return mean, np.abs(factor if dividing.op == "Div" else 1 / factor)


def _of_weight(node: FlatNode, values: Values) -> tuple[Array, Array] | None:
    """Return zero and one over the size of each row of a first weight whose rows differ much: [k]."""
    if node.op not in ("MatMul", "Gemm") or len(node.inputs) < 2:
        return None
    weight = values(node.inputs[1])
    if weight is None or weight.ndim != 2 or weight.dtype.kind != "f":
        return None
    rows = np.linalg.norm(weight.astype(np.float64), axis=0 if node.integers("transB") == (1,) else 1)
    known = rows[rows > 0]
    if not len(known) or known.max() < LEAST_RANGE * known.min():
        return None
    return np.zeros(1), 1 / np.where(rows > 0, rows, known.min())


def _constant(node: FlatNode, values: Values) -> Array | None:
    found = [array for name in node.inputs[:2] if (array := values(name)) is not None]
    return found[0] if found and found[0].size <= MOST_CHANNELS and found[0].dtype.kind == "f" else None


def _only_reader(node: FlatNode, flow: Flow) -> FlatNode | None:
    readers = flow.consumers.get(node.outputs[0], ())
    return readers[0].node if len(readers) == 1 else None
