"""Additions and look-ups that the runtime's optimizer joins with what follows: Gelu, LayerNormalization."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.editor import Emitter
from ..report import Skip
from .base import Writer, give, inputs_of, output_of

# Outputs of the fused normalizations.
MEAN, DEVIATION, TOTAL = 1, 2, 3
MASK_INDEX, SUM = 1, 2
_MICROSOFT = "com.microsoft"
# The lowest opset that has Gelu.
OPSET_GELU = 20


def biased_gelu(node: gs.Node) -> Writer | None:
    """Return BiasGelu, or FastGelu with a bias, as Add and Gelu."""
    x, bias = inputs_of(node, 2)
    if bias is None:
        return None
    fast = node.op == "FastGelu"

    def write(at: Emitter) -> None:
        name = node.outputs[0].name
        y = at.op("Add", x, bias, name=f"{name}.biased")
        if at.opset >= OPSET_GELU:
            y = at.op("Gelu", y, name=name, **({"approximate": "tanh"} if fast else {}))
        else:
            y = at.op("FastGelu" if fast else "Gelu", y, name=name, domain=_MICROSOFT)
        at.deliver(y, node)

    return write


def skip_normalization(node: gs.Node) -> Writer | Skip:
    """Return SkipLayerNormalization as Adds and LayerNormalization."""
    if output_of(node, MEAN) is not None or output_of(node, DEVIATION) is not None:
        return Skip("its statistics are used elsewhere")
    x, skip, scale, bias, addend = inputs_of(node, 5)
    given = output_of(node, TOTAL)
    epsilon = float(node.attrs.get("epsilon", 1e-12))

    def write(at: Emitter) -> None:
        name = node.outputs[0].name
        total = x if addend is None else at.op("Add", x, addend, name=f"{name}.biased")
        total = at.op("Add", total, skip, name=f"{name}.sum")
        _normalize(at, node, total, scale, bias, epsilon, given)

    return write


def embedding(node: gs.Node) -> Writer:
    """Return EmbedLayerNormalization as look-ups, their sum and LayerNormalization."""
    ids, segments, words, positions, kinds, scale, bias, mask, places = inputs_of(node, 9)
    counts, given = output_of(node, MASK_INDEX), output_of(node, SUM)
    epsilon = float(node.attrs.get("epsilon", 1e-12))

    def write(at: Emitter) -> None:
        name = node.outputs[0].name
        total: Any = at.op("Gather", words, ids, name=f"{name}.words", axis=0)
        where = places if places is not None else _counting(at, ids, name)
        total = at.op(
            "Add", total, at.op("Gather", positions, where, name=f"{name}.places", axis=0), name=f"{name}.sum"
        )
        if segments is not None and kinds is not None:
            kind = at.op("Gather", kinds, segments, name=f"{name}.segments", axis=0)
            total = at.op("Add", total, kind, name=f"{name}.sum")
        if counts is not None:
            # Without a mask the runtime counts no tokens.
            none = at.constant(np.array(0, np.int32), "none")
            seen = mask if mask is not None else at.op("Mul", ids, none, name=f"{name}.none", dtype=np.int32)
            axes = at.constant(np.array([1], np.int64), "tokens_axis")
            give(at, counts, "ReduceSum", seen, axes, keepdims=0, dtype=np.int32)
        _normalize(at, node, total, scale, bias, epsilon, given)

    return write


def _counting(at: Emitter, ids: gs.Tensor | None, name: str) -> gs.Variable:
    """Return 0, 1, 2, ... as many as there are tokens."""
    zero, one = (at.constant(np.array(number, np.int64), text) for number, text in ((0, "zero"), (1, "one")))
    shape = at.op("Shape", ids, name=f"{name}.shape", dtype=np.int64)
    tokens = at.op("Gather", shape, one, name=f"{name}.tokens", dtype=np.int64, axis=0)
    return at.op("Range", zero, tokens, one, name=f"{name}.counting", dtype=np.int64)


def _normalize(
    at: Emitter, node: gs.Node, total: Any, scale: Any, bias: Any, epsilon: float, given: gs.Variable | None
) -> None:
    """Write the normalization of a sum, and the sum itself as `given`, where the node gives it."""
    if given is not None:
        give(at, given, "Identity", total)
    parameters = [scale] if bias is None else [scale, bias]
    y = at.op("LayerNormalization", total, *parameters, name=node.outputs[0].name, axis=-1, epsilon=epsilon)
    at.deliver(y, node)
