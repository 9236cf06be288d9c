"""Calls of compressed operators, once all passes are done."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..functions.function import COMPOSED, DOMAIN


def compose_calls(graph: gs.Graph) -> None:
    """Let a call compute what it alone reads of another: BlockMatMul8 of what DecodeBlocks4 makes is BlockMatMul4.

    What several calls read, or a body does, is computed once, by a node of its own.
    """
    for node in graph.nodes:
        for index, tensor in enumerate(node.inputs if node.domain == DOMAIN else ()):
            maker = tensor.inputs[0] if tensor.inputs and len(tensor.outputs) == 1 else None
            both = COMPOSED.get((node.op, maker.op)) if maker is not None and maker.domain == DOMAIN else None
            if maker is not None and both is not None:
                node.op, node.attrs = both.name, {**maker.attrs, **node.attrs}
                node.inputs = [*node.inputs[:index], *maker.inputs, *node.inputs[index + 1 :]]
                maker.outputs.clear()
                break
