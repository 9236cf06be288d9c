"""Decoders that do the first step and the later ones in two branches of one If."""

from __future__ import annotations

import re
from enum import Enum
from itertools import chain

import onnx_graphsurgeon as gs

from .walk import scopes

# Inputs that hold what earlier tokens left: their models multiply one row at a time.
CACHE_INPUT = re.compile(r"past|cache", re.IGNORECASE)
CACHE_RANK = 3


class Phase(Enum):
    """What a branch is for."""

    FIRST = "a prompt: many rows"
    LATER = "the next token: few rows"


def find_phases(graph: gs.Graph) -> dict[int, Phase]:
    """Return, by id of a branch or a body in one, its phase: of two branches, one reads what earlier tokens left."""
    caches = {x.name for x in graph.inputs if CACHE_INPUT.search(x.name) and len(x.shape or ()) >= CACHE_RANK}
    found: dict[int, Phase] = {}
    for node in graph.nodes:
        branches = list(node.subgraphs()) if node.op == "If" else []
        later = [bool(caches & _read(branch)) for branch in branches]
        if sorted(later) == [False, True]:
            for branch, reads in zip(branches, later, strict=True):
                phase = Phase.LATER if reads else Phase.FIRST
                found |= {id(scope): phase for scope in scopes(branch)}
    return found


def _read(branch: gs.Graph) -> set[str]:
    """Return the names of all tensors that a branch reads."""
    nodes = chain.from_iterable(scope.nodes for scope in scopes(branch))
    outputs = chain.from_iterable(scope.outputs for scope in scopes(branch))
    return {tensor.name for tensor in chain(chain.from_iterable(node.inputs for node in nodes), outputs)}
