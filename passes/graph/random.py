"""Which operators draw numbers: two of them are never one, and none is computed beforehand."""

from __future__ import annotations

import onnx_graphsurgeon as gs

# ONNX's own and the runtime's; Dropout, too, which draws where it trains.
RANDOM = frozenset(
    {
        "Bernoulli", "BiasDropout", "BitmaskBiasDropout", "BitmaskDropout", "Dropout", "Multinomial", "RandomNormal",
        "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Sampling",
    }
)  # fmt: skip


def is_random(node: gs.Node) -> bool:
    """Tell whether two runs of a node, or of a node in its bodies, need not give the same."""
    return node.op in RANDOM or any(is_random(inner) for body in node.subgraphs() for inner in body.nodes)
