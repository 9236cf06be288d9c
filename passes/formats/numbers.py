"""What kind of numbers a constant holds: few different ones, whole ones, steps in one direction, a mask."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
# At most this many different values are told apart, and only where each stands for this many elements. Trained values
# that were float16 once are more.
MOST_VALUES, REPEATED = 1 << 12, 16
BYTE_VALUES = 1 << 8
# A mask's value is this many times all that it does not mask, and what it is added to at most that rest's size.
MASKED, MASKED_PART = 32, 0.5
# Fewer elements than this part are no mask but broken values.
LEAST_MASKED = 1 / 64
# Largest part that float16's rounding takes of a number, and what it may take of a tensor's largest.
HALF_ULP, NEGLIGIBLE = 2.0**-11, 2.0**-20


_math_erf = np.frompyfunc(math.erf, 1, 1)


class Distinct(NamedTuple):
    """The different values of an array, in the order of their bits, and which of them each element is, [*shape]."""

    table: Array
    indices: NDArray[np.intp]


class Masked(NamedTuple):
    """An array as the sum of a mask, 0 or `value` (perhaps infinite) where `places` is true, and the rest."""

    places: NDArray[np.bool_]
    value: np.floating[Any]
    rest: Array


def distinct(values: Array) -> Distinct | None:
    """Return the different values, to the bit, or None where they are too many to be worth a table."""
    bits = np.ascontiguousarray(values).view(f"u{values.itemsize}").reshape(-1)
    most = max(BYTE_VALUES, min(MOST_VALUES, bits.size // REPEATED))
    # A sample with too many is enough: sorting it all is slow.
    if len(np.unique(bits[:: max(1, bits.size // (2 * most))])) > most:
        return None
    found, indices = np.unique(bits, return_inverse=True)
    return Distinct(found.view(values.dtype), indices.reshape(values.shape)) if len(found) <= most else None


def is_whole(values: Array) -> bool:
    """Tell whether all values are whole numbers, finite."""
    flat = values.reshape(-1)
    return all(bool(np.all(np.isfinite(part) & (np.trunc(part) == part))) for part in (flat[:64], flat))


def is_ramp(values: Array) -> bool:
    """Tell whether values, more than two of them, rise or fall at every step."""
    before, after = values.reshape(-1)[:-1], values.reshape(-1)[1:]
    return bool(after.size > 1 and (np.all(after > before) or np.all(after < before)))


def split_mask(values: Array) -> Masked | None:
    """Return a mask of one value far from all others and what is added to it, or None where there is none."""
    with np.errstate(over="ignore"):
        return _split_mask(values)


def _split_mask(values: Array) -> Masked | None:
    size = np.abs(values)
    largest = size.max(initial=0)
    places = size >= largest / 2 if np.isfinite(largest) else ~np.isfinite(values)
    masked, others = values[places], size[~places]
    if (
        masked.size < LEAST_MASKED * values.size
        or np.isnan(masked).any()
        or not others.any()
        or largest < MASKED * others.max()
    ):
        return None
    found, counts = np.unique(masked, return_counts=True)
    value = found[counts.argmax()]
    rest = np.where(places, 0, values)
    if np.isfinite(largest):
        rest[places] = masked - value
    elif len(found) > 1:
        return None  # infinities of both signs
    within = np.abs(rest[places]).max() <= max(MASKED_PART * np.abs(value) / MASKED, others.max())
    return Masked(places, value, rest) if within else None


def half_holds(values: Array, each: bool) -> bool:
    """Tell whether float16 holds values, finite, to half an ulp: `each` of them, or what counts beside the largest."""
    if not np.isfinite(values).all():
        return False
    with np.errstate(over="ignore"):
        half = values.astype(np.float16).astype(np.float64)
    size = np.abs(values.astype(np.float64))
    allowed = size * HALF_ULP + (0 if each else NEGLIGIBLE * size.max(initial=0))
    return bool(np.all(np.abs(half - values) <= allowed))


def erf(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the error function of each number; for tables and probes, not for tensors."""
    return np.asarray(_math_erf(x), np.float64)
