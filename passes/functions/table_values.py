"""TableValues: a constant of few different values, bit for bit: places of 2 to 16 bits in a table.

    places int8 or uint16 [*codes] (or their planes, as in Unpack) -- Cast -- Gather(table) -- Reshape -> y [*matrix]

Places are signed up to 8 bits: those below zero count from the table's end, as Gather does. A session computes it once,
when it is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .function import Function, call
from .unpack import BY_SUFFIX as UNPACK
from .unpack import PLAIN


def reference(table: NDArray[np.generic], places: NDArray[np.integer], matrix: tuple[int, ...]) -> NDArray[np.generic]:
    """Return the values of a table at places, in another shape: exact."""
    y: NDArray[np.generic] = table[places].reshape(matrix)
    return y


_BODY = """
        places = Cast <to = 6> (codes)
        found = Gather <axis = 0> (table, places)
        matrix_shape = Constant <value_ints: ints = @matrix> ()
        y = Reshape (found, matrix_shape)"""
_SUMMARY = "Look up places of {} bits in a table of values"
WHOLE = Function("TableValues", "table, codes", "y", _BODY, _SUMMARY.format("8 or 16"), axes="matrix")
BY_SUFFIX = {
    suffix: Function(
        f"TableValues{suffix}",
        f"table, {unpack.inputs}",
        "y",
        f"codes = {call(unpack)} {_BODY}",
        _SUMMARY.format(suffix[0]),
        axes="matrix",
        calls=(unpack,),
    )
    for suffix, unpack in UNPACK.items()
    if suffix in PLAIN
}
