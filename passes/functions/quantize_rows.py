"""QuantizeRows: dynamic quantization of an activation to uint8, a scale a row: tokens do not disturb each other.

    x [..., k] -- ReduceMax, -ReduceMin, tiny -- Max -- Mul(1/127) -> scale [..., 1]
    x -- QuantizeLinear(scale, zero point 128, block_size k) -> q [..., k]

Two reductions are cheaper than Abs and one, and a blockwise QuantizeLinear with the row as its block than Div and a
scalar one: it needs opset 21, and more than one axis. Where it is not to be had Div takes its place.

Where x cannot fall below a small floor (-0.17 after Gelu), few codes are kept for what is negative, the scale is finer
by 1.75 (2 for a floor of zero) and ReduceMin is spared:

    x [..., k] -- ReduceMax -- Max(least_peak) -- Mul(step) -> scale [..., 1]
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from .function import OPSET_AXES, Function, reduce_last

# A row of zeros is divided by this, not by zero.
SMALLEST_SCALE = 1e-30
# Larger than every scale: what is quantized with it is zero.
HUGE = 1e38
# Codes of uint8, those below the middle, and those below zero where there is a floor.
CODES, MIDDLE, BELOW_ZERO = 255, 128, 32
# Longest sum of products of a uint8 and an int8 that an int32 holds, whatever they are, and so any correction for zero
# points: no kernel that adds up codes is given more.
LONGEST_SUM = (2**31 - 1) // (CODES * 128)


def least_peak(floor: float) -> float:
    """Return the peak that rows with a negative floor are taken to have at least: below, codes for it would be few."""
    return -floor / BELOW_ZERO * (CODES - BELOW_ZERO)


def zero_point(floor: float | None) -> int:
    """Return the code of zero for rows that are never below `floor`."""
    return MIDDLE if floor is None else BELOW_ZERO if floor < 0 else 0


def attributes(floor: float | None) -> dict[str, float | int]:
    """Return the attributes of a call for rows that are never below `floor`."""
    below = zero_point(floor)
    least = max(SMALLEST_SCALE, -floor / below if floor and below else 0.0)
    return {"zero_point": below, "least_peak": least * (CODES - below), "step": 1 / (CODES - below)}


def reference(x: NDArray[np.float32], floor: float | None = None) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return q [..., k] and scale [..., 1]; an element of x errs by at most half its row's scale."""
    numbers = attributes(floor)
    peak = np.maximum(x.max(-1, keepdims=True), np.float32(numbers["least_peak"]))
    if floor is None:
        peak = np.maximum(peak, -x.min(-1, keepdims=True))
    scale = peak * np.float32(numbers["step"])
    return np.clip(np.rint(x / scale) + numbers["zero_point"], 0, CODES).astype(np.uint8), scale


# As many zero points as scales are wanted: all the same, whatever the scale.
_ZEROS = f"huge = Constant <value_float = {HUGE!r}> () zeros = QuantizeLinear (scale, huge, zero) "
_BLOCKS = "q = QuantizeLinear <axis = -1, block_size: int = @block_size> (x, scale, zeros)"
_DIVISION = "steps = Div (x, scale) one = Constant <value_float = 1.0> () q = QuantizeLinear (steps, one, zero)"


_TYPES = (np.uint8, np.float32, np.uint8)


def _body(opset: int, floor: bool, quantize: str) -> str:
    fixed = attributes(None)
    lines = [
        "last = Constant <value_ints = [-1]> ()" if opset >= OPSET_AXES else "",
        f"highest = {reduce_last('ReduceMax', 'x', opset)}",
    ]
    if floor:
        lines += [
            "point = Constant <value_int: int = @zero_point> ()",
            "zero = Cast <to = 2> (point)",
            "least = Constant <value_float: float = @least_peak> ()",
            "step = Constant <value_float: float = @step> ()",
            "peak = Max (highest, least)",
        ]
    else:
        lines += [
            f"zero = Constant <value = uint8 {{{fixed['zero_point']}}}> ()",
            f"least = Constant <value_float = {fixed['least_peak']!r}> ()",
            f"step = Constant <value_float = {fixed['step']!r}> ()",
            f"lowest = {reduce_last('ReduceMin', 'x', opset)}",
            "depth = Neg (lowest)",
            "peak = Max (highest, least, depth)",
        ]
    return "\n".join([*lines, "scale = Mul (peak, step)", quantize])


def inside(opset: int, floor: bool, blockwise: bool, length: str) -> str:
    """Return the body that makes `q` and `scale` of `x`, for functions that quantize rows themselves.

    `length` is the name of their attribute for k.
    """
    quantize = _ZEROS + _BLOCKS.replace("@block_size", f"@{length}") if blockwise else _DIVISION
    return _body(opset, floor, quantize)


def _functions(name: str, floor: bool) -> tuple[Function, Function, Function]:
    def function(ending: str, inputs: str, outputs: str, quantize: str) -> Function:
        body = partial(_body, floor=floor, quantize=quantize)
        summary = "Quantize each row of x to uint8: x = (q - zero_point) * scale"
        return Function(name + ending, inputs, outputs, body, summary, _TYPES[: len(outputs.split(", "))])

    return (
        function("", "x", "q, scale, zeros", _ZEROS + _BLOCKS),
        function("Like", "x, zeros", "q, scale", _BLOCKS),
        function("ByDivision", "x", "q, scale", _DIVISION),
    )


# With zero points of its own, with those of a call on as many rows, and in operators of every opset.
OWN, LIKE, DIVISION = zip(_functions("QuantizeRows", False), _functions("QuantizeRowsAbove", True), strict=True)
