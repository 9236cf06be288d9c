"""Turn: zero, which a session computes one round of its optimizer later than the turn before.

    previous -- Add(DequantizeLinear(0)) -- Neg -- QuantizeLinear -- Cast -> turn float [1]

A session computes what depends on constants alone in one go, and keeps every step of every weight's decoding until all
are done: four bytes and more a weight. What waits for a turn is computed in a round of its own, after which its steps
are freed. ONNX Runtime leaves a DequantizeLinear alone for a fused operator to take; once the previous turn is a
constant zero, it takes the Add away, and then computes DequantizeLinear, Neg and QuantizeLinear, which are such an
operator now. It has ten rounds: turns beyond MOST would be computed at every call.
"""

from __future__ import annotations

from .function import Function

# Of ten, two are left for what else the optimizer has to do.
MOST = 8
FUNCTION = Function(
    "Turn",
    "previous",
    "y",
    """
        nothing = Constant <value = int8[1] {0}> ()
        unit = Constant <value = float {1.0}> ()
        middle = Constant <value = int8 {0}> ()
        zero = DequantizeLinear (nothing, unit)
        waited = Add (zero, previous)
        negative = Neg (waited)
        code = QuantizeLinear (negative, unit, middle)
        y = Cast <to = 1> (code)""",
    "Zero, computed a round of the session's optimizer after the previous turn",
    axes="first",
)
