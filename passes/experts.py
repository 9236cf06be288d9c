"""Experts of one MoE node, whose weights stay packed: the runtime's QMoE, where products are packed.

    Before: x [tokens, k], router [tokens, e], weights float [e, n, k] and [e, k, n] -- MoE -> [tokens, k]
    After:  x, router, codes uint8 [e, n, k * bits / 8], scales [e, n, k / block], ... -- QMoE -> [tokens, k]

As the floats that other constants are decoded to, experts would take four bytes a weight in memory, of which a token
reads a few only. QMoE multiplies codes of 4 and 8 bits, one width and one block size for both weights of a node. The
runtime has no kernel for a third weight, with or without codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as with_changes
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .context import Context
from .formats.block import BlockFormat
from .graph.constants import ConstantView, resolve
from .graph.editor import Emitter
from .graph.features import Feature
from .lowerings.base import StoredWeight
from .lowerings.operators import reshape
from .lowerings.packed import Packed
from .report import Skip

COMPUTES = True
# Inputs of MoE: weights, each with its bias behind it, between which QMoE has scales; a third weight.
FIRST, SECOND, THIRD = 2, 4, 6
AXES = 3
# Rows of a matrix that is longer than any block.
LONG = 1 << 20


@dataclass
class PackedRows(Packed):
    """Packed weights as QMoE takes them, which has no zero points and is given no decoded codes."""

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return what a weight has at the next width of the kernel."""
        return super().format(self.width(bits), block_size, k)

    def table_format(self, bits: int, block_size: int, k: int, opset: int) -> BlockFormat:
        """Return what a weight has, without zero points."""
        del opset
        return self.format(bits, block_size, k).centered


PACKED = PackedRows(lacks=frozenset({Feature.NBITS_2}))


@dataclass(frozen=True)
class Experts:
    """A MoE and its weights, [e, n, k] and [e, k, n]."""

    scope: gs.Graph
    node: gs.Node
    weights: tuple[ConstantView, ...]


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Experts | Skip | None:
    """Return the weights of a MoE, where products are packed."""
    lowering = context.lowering
    if node.op != "MoE" or node.domain != "com.microsoft":
        return None
    if lowering.standard_only or lowering.decoded_at_load:
        return None
    if len(node.inputs) > THIRD and node.inputs[THIRD].name:
        return Skip("it has a third weight, for which there is no kernel")
    views = [resolve(node.inputs[index]) for index in (FIRST, SECOND)]
    weights = tuple(view for view in views if view is not None and view.dtype == "float32" and len(view.shape) == AXES)
    if len(weights) < len(views):
        return Skip("not all of its weights are constants [experts, n, k] of float32")
    block = PACKED.format(4, context.options.block_size, LONG).block_size
    odd = [view.shape[-1] for view in weights if view.shape[-1] % block]
    return (
        Skip(f"its sums of {odd[0]} products are no whole blocks of {block}") if odd else Experts(scope, node, weights)
    )


def replace(context: Context, matches: list[Experts]) -> Skip | None:
    """Write QMoE in place of a MoE."""
    (experts,) = matches
    node, options, load = experts.node, context.options, context.editor.at_load()
    at = context.editor.before(experts.scope, node)
    if not at.has(Feature.EXPERTS):
        return Skip(f"the runtime has no {Feature.EXPERTS}")
    names = [context.names.get(view.source.name, view.source.name) for view in experts.weights]
    fmt = PACKED.format(max(map(options.width, names)), options.block_size, LONG)
    asked = with_changes(
        options, bits_for={**options.bits_for, **dict.fromkeys(names, fmt.bits)}, block_size=fmt.block_size
    )
    own = with_changes(context, lowering=PACKED, options=asked)
    codes: list[gs.Tensor] = []
    for view in experts.weights:
        key = (id(view.source), view.steps, "experts", fmt.bits)
        weight = own.store(key, [view.source], partial(_matrix, view), by_rows=True)
        if isinstance(weight, Skip):
            return weight
        codes += _by_expert(load, view, weight)
    given = [tensor if tensor.name else None for tensor in node.inputs]
    first, second = (given[index] if index < len(given) else None for index in (FIRST + 1, SECOND + 1))
    inputs = [*given[:FIRST], *codes[:2], first, *codes[2:], *([second] if second is not None else [])]
    attrs = {**node.attrs, "expert_weight_bits": fmt.bits, "block_size": fmt.block_size}
    at.node("QMoE", inputs, [at.take(node)], domain=node.domain, called=node.name, **attrs)
    return None


def _matrix(view: ConstantView) -> NDArray[np.floating]:
    """Load the weights of all experts as one matrix, [k, e * n]."""
    values = view.values().reshape(-1, view.shape[-1])
    return np.asarray(values.T)


def _by_expert(load: Emitter, view: ConstantView, weight: StoredWeight) -> list[gs.Tensor]:
    """Return codes [e, n, bytes of a row] and scales [e, n, blocks] of a weight stored as [e * n, ...]."""
    rows = (*view.shape[:-1], -1)
    return [reshape(load, x, rows, f"{weight.name}.experts") for x in (weight.values, weight.scale)]
