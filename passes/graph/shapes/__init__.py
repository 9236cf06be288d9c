"""Sizes of the axes of tensors, and the elements of small ones, known without running a model, in sizes with names.

    known        holds what was found: `batch`, `past + 1`
    sizes        arithmetic of sizes with names

`graph.follow` finds it out, as the rules in `graph.operators` say.
"""

from .known import END, Shapes, parameter, rank, slices
from .sizes import ONE, ZERO, Shape, Size, broadcast, product

__all__ = ["END", "ONE", "ZERO", "Shape", "Shapes", "Size", "broadcast", "parameter", "product", "rank", "slices"]
