"""What a pass is: a module with `match` and `replace`, and whatever else of this it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import onnx_graphsurgeon as gs

from .context import Context
from .report import Skip


class Match(Protocol):
    """What a pass found: whatever its rewrite needs, and the node that it reports."""

    @property
    def node(self) -> gs.Node:
        """The node that was matched, by whose name reports speak of it."""
        ...


class Pass(Protocol):
    """What every pass offers, and what it may offer besides.

    OPSET: the lowest opset that has the pass's operators; 1.
    COMPUTES: whether it gives operators a form on codes, so that those it leaves alone compute in float; False.
    BEST_OPSET, BEST_FOR: the opset from which on it is of use, and to graphs with one of which operators; none.
    prepare(graph, context): looks at the whole graph before any pass changes it.
    groups(matches): parts the matches into lists that are rewritten together; each alone.
    finish(graph, context, reports): completes the reports when all passes are done.
    """

    __name__: str

    def match(self, scope: gs.Graph, node: gs.Node, context: Context, /) -> Match | Skip | None:
        """Return what the rewrite needs, why the node is left alone, or None for nodes of no concern; change nothing.

        `scope` is the graph or the body that the node is in.
        """
        ...

    def replace(self, context: Context, matches: list[Any], /) -> Skip | None:
        """Rewrite a group of matches through `context.editor`, or return why not."""
        ...


Form = TypeVar("Form", bound=Match)


@dataclass(frozen=True)
class Rewrite(Generic[Form]):
    """Operators in one of the forms that `patterns` know, and the graph or body they are in."""

    scope: gs.Graph
    form: Form

    @property
    def node(self) -> gs.Node:
        """The last node of the form."""
        return self.form.node
