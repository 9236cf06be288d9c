"""Turns for what is decoded when a session is made, so that its steps are not all in memory at once; see Turn."""

from __future__ import annotations

import heapq

import numpy as np
import onnx_graphsurgeon as gs

from ..functions.function import function_of
from ..functions.turn import FUNCTION, MOST
from .constants import constant_bytes
from .editor import Editor

# Below so many bytes of codes, and so a few times as many in memory, nothing has to wait.
SMALLEST_BYTES = 1 << 22
# How much less each turn decodes than the one before it. The steps of a turn take about six times what it leaves
# behind; since what earlier turns left is in memory, too, turns of the same size would have their peak in the last.
LEFT = 5 / 6


def take_turns(graph: gs.Graph, editor: Editor) -> None:
    """Let the calls that decode large weights take turns, large ones first, so that each turn's peak is as high."""
    # A call that another one composes is still there, and makes nothing.
    calls = [node for node in graph.nodes if node.outputs and _places(node)]
    sizes = {id(node): _bytes(node) for node in calls}
    if sum(sizes.values()) < SMALLEST_BYTES:
        return
    load = editor.at_load()
    turns: list[gs.Tensor] = [load.constant(np.zeros(1, np.float32), "now")]
    for number in range(1, MOST + 1):
        turns += load.call(FUNCTION, turns[-1], name=f"turn{number}")
    # The first comes in the same round as what has no turn.
    numbers = range(2, MOST + 1)
    filled = [(0.0, number) for number in numbers]
    for node in sorted(calls, key=lambda node: -sizes[id(node)]):
        part, number = heapq.heappop(filled)
        heapq.heappush(filled, (part + sizes[id(node)] / LEFT ** (number - numbers[0]), number))
        for place in _places(node):
            node.inputs[place] = turns[number]


def _places(node: gs.Node) -> list[int]:
    """Return which inputs of a call are turns: one of each weight that it decodes."""
    function = function_of(node)
    names = function.inputs.split(", ") if function is not None else []
    return [place for place, name in enumerate(names) if name.rstrip("0123456789") == "turn"]


def _bytes(node: gs.Node) -> int:
    return sum(constant_bytes(tensor) for tensor in node.inputs if isinstance(tensor, gs.Constant))
