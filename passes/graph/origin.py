"""Where the rows of a tensor come from: tensors of one origin have the same axes, the last one aside.

Names of axes do not tell: two inputs whose axes have one name may have different lengths.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .axes import is_last_axis, over_last_axis
from .constants import resolve
from .operators import Trait, operator_of
from .operators.rules import MATRIX, matmul
from .shapes import rank


class Origins:
    """Finds the origins of tensors, each once."""

    def __init__(self) -> None:
        """Begin with none known."""
        # The tensors themselves, too: an id is another's once its tensor is gone.
        self._known: dict[int, tuple[gs.Tensor, gs.Tensor]] = {}

    def find(self, tensor: gs.Tensor) -> gs.Tensor:
        """Return the first tensor behind a tensor, or itself, with the same axes except for the last."""
        # What is behind a tensor comes before it: models are deeper than calls may be.
        pending = [tensor]
        while pending:
            current = pending[-1]
            behind = [] if id(current) in self._known else _behind(current)
            missing = [each for each in behind if id(each) not in self._known]
            if missing:
                pending += missing
                continue
            pending.pop()
            if id(current) not in self._known:
                found = {id(first): first for first in (self._known[id(each)][1] for each in behind)}
                self._known[id(current)] = current, found.popitem()[1] if len(found) == 1 else current
        return self._known[id(tensor)][1]


def _behind(tensor: gs.Tensor) -> list[gs.Tensor]:
    """Return the tensors that give a tensor its axes."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None:
        return []
    operator = operator_of(node)
    if Trait.KEEPS_ROWS in operator.traits or over_last_axis(node) or (node.op == "Split" and is_last_axis(node)):
        return [node.inputs[0]]
    if operator.shapes is matmul:
        return [node.inputs[0]] if (rank(node.inputs[1]) or MATRIX + 1) <= MATRIX else []
    elementwise = Trait.ELEMENTWISE in operator.traits
    return [each for each in node.inputs if each.name and resolve(each) is None] if elementwise else []
