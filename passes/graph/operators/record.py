"""What is known of an operator, as one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any

import onnx_graphsurgeon as gs

from ..shapes import Shape, Shapes
from ..shapes.sizes import Values

# From a node and what is known of what it reads: the shapes of its outputs, as many as are known.
ShapeRule = Callable[[Shapes, gs.Node], list[Shape | None]]
# And the elements of its first output, where that is small.
ValueRule = Callable[[Shapes, gs.Node], Values | None]


class Trait(Flag):
    """Facts about operators that passes ask for."""

    NONE = 0
    # Computes every place of its output from the same place of its inputs, which are broadcast to each other.
    ELEMENTWISE = auto()
    # Has all axes of its first input, the last one perhaps of another size.
    KEEPS_ROWS = auto()
    # Puts together the elements along some axes.
    REDUCES = auto()
    # Adds up products of what it reads: of activations with weights, or with each other.
    MULTIPLIES = auto()
    # Takes means and sizes out of its first input, whose next input is a scale.
    NORMALIZES = auto()
    # Every value of a row, the last axis, depends on all of the row that it comes from.
    MIXES = auto()
    # Is of moderate size, however large what it reads.
    BOUNDED = auto()
    # Is never below 0.
    NOT_NEGATIVE = auto()
    # Steps, or turns around: where it does, a small error becomes a large one.
    TURNS = auto()
    # Reads codes, or makes them, with scales that it reads.
    CODES = auto()
    # Makes codes of the floats that it reads.
    QUANTIZES = auto()
    # Looks at the shape of what it reads, or takes it for one.
    SHAPES = auto()
    # Need not give the same twice.
    RANDOM = auto()


@dataclass(frozen=True)
class Operator:
    """An operator; all that is left out is not known of it.

    Attributes:
        name: its name, behind its domain and a dot unless it is one of ONNX's own.
        shapes: the rule for the shapes of its outputs.
        traits: facts.
        moves: the inputs whose values make up the first output, somewhere else; None where values are computed.
        function: what it computes of numbers, over the last axis where it reduces.
        sizes: the same of sizes.
        values: the rule for the elements of its first output, of an operator without a function.
        typed_by: number of the input that has the element type of the first output, where ONNX has no schema that tells
            and it may be another than that of the floats it reads.
        types: ONNX element types of outputs, where neither that input nor a schema tells; 0 for that of its floats.
    """

    name: str
    shapes: ShapeRule | None = None
    traits: Trait = Trait.NONE
    moves: slice | None = None
    function: Callable[..., Any] | None = None
    sizes: Callable[..., Any] | None = None
    values: ValueRule | None = None
    typed_by: int | None = None
    types: tuple[int, ...] = ()


def qualified(op: str, domain: str | None) -> str:
    """Return an operator's name, with its domain unless it is one of ONNX's own."""
    return op if domain in (None, "", "ai.onnx") else f"{domain}.{op}"
