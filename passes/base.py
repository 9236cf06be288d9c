"""What a pass is: a module with `match` and `replace`, and whatever else of this it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import onnx_graphsurgeon as gs

from .context import Context
from .report import PassReport, Skip


class Match(Protocol):
    """What a pass found: whatever its rewrite needs, and the node that it reports."""

    @property
    def node(self) -> gs.Node:
        """The node that was matched, by whose name reports speak of it."""
        ...


class Pass(Protocol):
    """What every pass offers."""

    __name__: str

    def match(self, scope: gs.Graph, node: gs.Node, context: Context, /) -> Match | Skip | None:
        """Return what the rewrite needs, why the node is left alone, or None for nodes of no concern; change nothing.

        `scope` is the graph or the body that the node is in.
        """
        ...

    def replace(self, context: Context, matches: list[Any], /) -> Skip | None:
        """Rewrite a group of matches, one unless the pass `Groups`, through `context.editor`, or return why not."""
        ...


@runtime_checkable
class Groups(Protocol):
    """A pass that rewrites several matches together."""

    def groups(self, matches: list[Any], /) -> list[list[Any]]:
        """Return the groups, which together are the matches."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A pass that looks at the whole graph before any pass changes it."""

    def prepare(self, graph: gs.Graph, context: Context, /) -> None:
        """Note in the context what the graph tells."""
        ...


@runtime_checkable
class Finishes(Protocol):
    """A pass that has something to say once all passes are done."""

    def finish(self, graph: gs.Graph, context: Context, reports: list[PassReport], /) -> None:
        """Complete the reports."""
        ...


@runtime_checkable
class NeedsOpset(Protocol):
    """A pass whose operators are newer than those of the weights: OPSET is the lowest opset that has them."""

    OPSET: int


@runtime_checkable
class PrefersOpset(Protocol):
    """A pass that is of use from opset BEST_OPSET on, to graphs with one of the operators in BEST_FOR."""

    BEST_OPSET: int
    BEST_FOR: frozenset[str]


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
