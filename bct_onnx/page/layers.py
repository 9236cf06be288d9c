"""Bits by layer: where a weight is, read off its name or that of the node that multiplies with it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from passes.report import TOGETHER

from .sizes import WeightSize

# A number between two other parts of a path is that of a layer.
_NUMBER = re.compile(r"_?(\d+)")
_NUMBERED = re.compile(r"([A-Za-z]\w*?)_(\d+)")
# What a name ends with besides the module's.
_ENDS = frozenset({"weight", "kernel"})
# Smaller weights are biases and the like; more columns than these are no picture.
SMALLEST_BYTES, MOST_COLUMNS = 4096, 10


@dataclass(frozen=True)
class Place:
    """Where a weight is: the layers' common name, the number of the layer, the name below that."""

    stack: str
    number: int
    role: str


@dataclass(frozen=True)
class Cell:
    """The widths at one place, in words, and as a number for the colour."""

    text: str
    width: int


@dataclass(frozen=True)
class Layers:
    """A table of widths.

    Attributes:
        columns: places in a layer, in the order of the weights.
        rows: name of the layer, and a cell a column (None where the layer has no such weight).
        outside: weights in no layer, with their widths.
        left_out: places that are not shown, since there are too many.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]
    outside: Sequence[tuple[str, Cell]]
    left_out: int

    @property
    def same(self) -> str:
        """The width that all cells have, or nothing where they differ."""
        texts = {cell.text for _, cells in self.rows for cell in cells if cell}
        return texts.pop() if len(texts) == 1 else ""


def place_of(name: str, node: str, op: str) -> Place | None:
    """Return the place that a weight's name says, or that of the node which reads it; None where there is none."""
    names = name.split(TOGETHER)
    places = [_place(each, op) for each in names]
    if len({place and (place.stack, place.number) for place in places}) > 1:
        return None  # weights of several layers, stored as one
    place = places[0] or _place(node, op)
    return replace(place, role=f"{place.role} +{len(names) - 1}") if place and len(names) > 1 else place


def _place(path: str, op: str) -> Place | None:
    """Return the place that a path names."""
    parts = [part for part in re.split(r"[./]+", path) if part]
    for at in range(len(parts) - 1):
        found = _layer(parts, at)
        role = ["*" if part.isdigit() else part for part in parts[at + 1 :] if not _is_end(part, op)]
        if found and role:
            return Place(*found, ".".join(role))
    return None


def find_layers(weights: Sequence[WeightSize]) -> Layers | None:
    """Return the widths by layer, or None where names tell of fewer than two layers."""
    large = [weight for weight in weights if weight.before >= SMALLEST_BYTES and not _is_vector(weight)]
    places = [(weight, place_of(weight.name, weight.node, weight.op)) for weight in large]
    cells: defaultdict[tuple[str, int], defaultdict[str, list[WeightSize]]] = defaultdict(lambda: defaultdict(list))
    size: defaultdict[str, int] = defaultdict(int)
    for weight, place in places:
        if place is not None:
            cells[place.stack, place.number][place.role].append(weight)
            size[place.role] += weight.before
    if len(cells) < 2:
        return None
    stacks = list(dict.fromkeys(stack for stack, _ in cells))
    order = sorted(cells, key=lambda key: (stacks.index(key[0]), key[1]))
    kept = sorted(size, key=lambda role: -size[role])[:MOST_COLUMNS]
    columns = [role for role in size if role in kept]
    rows = [
        (_label(key, stacks), [_cell(cells[key][column]) if column in cells[key] else None for column in columns])
        for key in order
    ]
    outside = [(weight.name, cell) for weight, place in places if place is None and (cell := _cell([weight]))]
    return Layers(columns, rows, outside, len(size) - len(kept))


def _is_vector(weight: WeightSize) -> bool:
    return bool(weight.shape) and sum(size > 1 for size in weight.shape) < 2


def _layer(parts: Sequence[str], at: int) -> tuple[str, int] | None:
    """Return the stack and number of the layer that a part of a path names."""
    before = list(dict.fromkeys(part.strip("_") for part in parts[:at]))
    if before and (plain := _NUMBER.fullmatch(parts[at])):
        return ".".join(before), int(plain[1])
    if numbered := _NUMBERED.fullmatch(parts[at]):
        return ".".join([*before, numbered[1]]), int(numbered[2])
    return None


def _is_end(part: str, op: str) -> bool:
    return part in _ENDS or bool(op and re.fullmatch(rf"{re.escape(op)}(_\d+)?", part))


def _label(key: tuple[str, int], stacks: Sequence[str]) -> str:
    stack, number = key
    return f"{stack.rpartition('.')[2] if len(stacks) == 1 else stack} {number}"


def _cell(weights: Sequence[WeightSize]) -> Cell:
    kinds = sorted({weight.bits for weight in weights})
    widths = [int(kind.removesuffix(" bits")) if kind[0].isdigit() else 16 for kind in kinds]
    if len(kinds) == 1:
        return Cell(kinds[0].removesuffix(" bits"), widths[0])
    if any(not kind[0].isdigit() for kind in kinds):
        return Cell(", ".join(kind.removesuffix(" bits") for kind in kinds), max(widths))
    return Cell(f"{min(widths)} to {max(widths)}", round(sum(widths) / len(widths)))
