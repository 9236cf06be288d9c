"""Weights that were stored apart, each with bits of its own, multiplied as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.editor import Emitter
from .base import StoredWeight
from .operators import FLOAT, cast


def join_columns(load: Emitter, weights: Sequence[StoredWeight]) -> StoredWeight:
    """Write weights [k, n] with a scale a column, [n], as one with their columns side by side."""
    first = weights[0]
    name = f"{first.name}.joined"
    values = load.op("Concat", *(weight.values for weight in weights), name=name, dtype=first.values.dtype, axis=1)
    alike = len({(weight.tensor_scale, np.dtype(weight.scale.dtype)) for weight in weights}) == 1
    scales = [weight.scale if alike else _float_scale(load, weight) for weight in weights]
    scale = load.op("Concat", *scales, name=f"{name}_scale", dtype=scales[0].dtype, axis=0)
    return replace(
        first,
        name=name,
        values=values,
        scale=scale,
        n=sum(weight.n for weight in weights),
        tensor_scale=first.tensor_scale if alike else 1.0,
        bytes=sum(weight.bytes for weight in weights),
    )


def _float_scale(load: Emitter, weight: StoredWeight) -> gs.Variable:
    """Return the scales times the factor that would be applied elsewhere, a power of two."""
    factor = load.constant(np.array(weight.tensor_scale, np.float32), f"{weight.name}.factor")
    scale = cast(load, weight.scale, FLOAT, f"{weight.name}.float_scale")
    return load.op("Mul", scale, factor, name=f"{weight.name}.whole_scale", dtype=np.float32)
