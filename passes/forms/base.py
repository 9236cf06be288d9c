"""What every form of this folder returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_graphsurgeon as gs

from ..graph.editor import Emitter

# Writes plain operators in the place of a fused one.
Writer = Callable[[Emitter], None]


def inputs_of(node: gs.Node, count: int) -> list[gs.Tensor | None]:
    """Return the first `count` inputs of a node, None for those that are left out."""
    given = [tensor if tensor.name else None for tensor in node.inputs]
    return [*given, *[None] * (count - len(given))][:count]


def output_of(node: gs.Node, number: int) -> gs.Variable | None:
    """Return an output of a node, or None where it is left out."""
    output = node.outputs[number] if number < len(node.outputs) else None
    return output if output is not None and output.name else None


def give(at: Emitter, output: gs.Variable, op: str, *inputs: gs.Tensor | None, **attrs: Any) -> None:
    """Let a new node compute what is another output of a fused one than its first."""
    output.inputs.clear()
    at.op(op, *inputs, name=output.name, output=output, **attrs)
