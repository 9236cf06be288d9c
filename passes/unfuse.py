"""Operators that an optimizer or an exporter made of several: taken apart, so that every pass sees the plain ones.

    Before: FusedMatMul, FusedGemm, Einsum, W @ x, Attention with its weights, EmbedLayerNormalization, BiasGelu, ...
    After:  MatMul, Add, Gather, Softmax, LayerNormalization, Gelu, with Transpose and Reshape around

The session joins again what it computes faster in one operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from .context import Context
from .forms import einsum, elementwise, lookups, merged_attention, products
from .forms.base import Writer
from .graph.walk import is_standard
from .report import Skip

# Operators by domain and name: what tells their plain form, and the lowest opset that has that.
_FORMS: dict[tuple[str, str], tuple[Callable[[gs.Node], Writer | Skip | None], int]] = {
    ("", "Einsum"): (einsum.einsum, 13),
    ("", "GatherND"): (lookups.gather_nd, 13),
    ("", "Gemm"): (products.left_gemm, 7),
    ("", "MatMul"): (products.left_matmul, 7),
    ("com.microsoft", "Attention"): (merged_attention.merged_attention, 14),
    ("com.microsoft", "BiasGelu"): (elementwise.biased_gelu, 7),
    ("com.microsoft", "EmbedLayerNormalization"): (elementwise.embedding, 17),
    ("com.microsoft", "FastGelu"): (elementwise.biased_gelu, 7),
    ("com.microsoft", "FusedGemm"): (products.fused_gemm, 7),
    ("com.microsoft", "FusedMatMul"): (products.fused_matmul, 7),
    ("com.microsoft", "SkipLayerNormalization"): (elementwise.skip_normalization, 17),
}


@dataclass(frozen=True)
class Fused:
    """A node and what writes plain operators in its place."""

    scope: gs.Graph
    node: gs.Node
    write: Writer


def match(scope: gs.Graph, node: gs.Node, context: Context) -> Fused | Skip | None:
    """Return the plain form of a fused operator."""
    form, opset = _FORMS.get(("" if is_standard(node) else node.domain, node.op), (None, 0))
    write = form(node) if form else None
    if write is not None and not isinstance(write, Skip) and context.editor.opset < opset:
        write = Skip(f"opset {context.editor.opset} has no plain form of it: opset {opset} has")
    return Fused(scope, node, write) if write is not None and not isinstance(write, Skip) else write


def replace(context: Context, matches: list[Fused]) -> Skip | None:
    """Write one in plain operators."""
    (fused,) = matches
    fused.write(context.editor.before(fused.scope, fused.node))
    return None
