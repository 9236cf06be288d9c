"""Sizes of the axes of tensors, and the elements of small ones, known without running a model.

Two questions, two answers. `find_shapes` goes through a whole model once, before it is changed: all that can be known,
in sizes with names (`batch`, `past + 1`). `rank` asks for the number of axes of one tensor, at any time.

    follow       goes through the graph; shape_rules and value_rules say what each operator makes of what it reads
    known        holds what was found
    sizes        arithmetic of sizes with names
    rank         looks back from one tensor, of those that passes wrote, too
"""

from .follow import find_shapes
from .known import END, Shapes, slices
from .rank import rank
from .sizes import ONE, ZERO, Shape, Size, broadcast

__all__ = ["END", "ONE", "ZERO", "Shape", "Shapes", "Size", "broadcast", "find_shapes", "rank", "slices"]
