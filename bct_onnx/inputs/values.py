"""Values for one input of a known role and shape."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from bct_onnx.arrays import Array, Value
from bct_onnx.errors import BctError
from bct_onnx.inputs.roles import CONTROLS, ModelInput, Role

_UNKNOWN_ROWS = 100  # of a table that is computed, not stored
_PADDED = -1e4  # what an additive mask adds; float16 holds it
_UNFEEDABLE = "input {name!r} has element type {type}, which the Python interface of ONNX Runtime cannot be fed"


# Rows that token numbers for models that bear no more are of.
_PLAIN_ROWS = 2
# Roles of values that do not follow from sizes.
_DRAWN = frozenset({Role.IDS, Role.TYPES, Role.INDICES, Role.BYTES, Role.TEXT, Role.WEIGHT, Role.CACHE, Role.NUMBERS})
PICTURE_RANK, SMALLEST_PICTURE = 4, 8
_LEAVES = 150


def numpy_type(entry: ModelInput) -> np.dtype[Any]:
    """Return the numpy type an input is fed with (bfloat16 as float32); BctError where there is none."""
    if entry.elem_type == TensorProto.BFLOAT16:
        return np.dtype(np.float32)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(entry.elem_type))
    if dtype.kind not in "biufcOSU":
        name = TensorProto.DataType.Name(entry.elem_type).lower()
        raise BctError(_UNFEEDABLE.format(name=entry.name, type=name))
    return dtype


def make_value(
    entry: ModelInput, shape: tuple[int, ...], sizes: Mapping[str, int], rng: np.random.Generator, plain: bool
) -> Value:
    """Draw one input; `plain`: ids 0 and 1, nothing padded, for models that bear no more."""
    value = _counted(entry, shape, sizes, plain)
    if value is None:
        value = _drawn(entry, shape, rng, plain)
    array = np.asarray(value, numpy_type(entry))
    return [array, array] if entry.container == "sequence" else array


def redraw(entry: ModelInput, value: Value, rng: np.random.Generator) -> Value:
    """Return values like those made for an input, drawn anew; those that follow from sizes alone stay."""
    if entry.role not in _DRAWN:
        return value
    first = value[0] if isinstance(value, list) else value
    plain = entry.role is Role.IDS and first.max(initial=0) < _PLAIN_ROWS
    array = np.asarray(_drawn(entry, first.shape, rng, plain), numpy_type(entry))
    return [array, array] if isinstance(value, list) else array


def _counted(  # noqa: PLR0911 - a table by role
    entry: ModelInput, shape: tuple[int, ...], sizes: Mapping[str, int], plain: bool
) -> Array | None:
    """Return values that follow from sizes alone, None for a role whose values are drawn."""
    ones = np.ones(shape, np.int64)
    match entry.role:
        case Role.POSITIONS:
            count = sizes["past"] + np.arange(shape[-1] if shape else 1)
            return ones * (count % (entry.rows or np.iinfo(np.int32).max)).reshape(-1 if shape else ())
        case Role.MASK:
            return ones if plain else _padded(shape, sizes["feed"])
        case Role.ADDITIVE_MASK:
            return _PADDED * (0 * ones if plain else 1 - _padded(shape, sizes["feed"]))
        case Role.LENGTHS:
            return ones * sizes["total"] if plain else _lengths(shape, sizes["total"], sizes["feed"])
        case Role.LAST | Role.TOTAL:
            return ones * (sizes["total"] - (entry.role is Role.LAST))
        case Role.CONTROL:
            return np.asarray(ones * _control(entry.name.lower(), sizes))
        case Role.CACHE_FLAG:
            return ones * sizes.get("cached", int(sizes["past"] > 0))
        case Role.FLAG:
            return ones * (sizes["feed"] % 2)
    return None


def _drawn(entry: ModelInput, shape: tuple[int, ...], rng: np.random.Generator, plain: bool) -> Array:
    match entry.role:
        case Role.IDS:
            rows = entry.rows or _UNKNOWN_ROWS
            return rng.integers(0, min(_PLAIN_ROWS, rows) if plain else rows, shape)
        case Role.TYPES | Role.INDICES:
            return rng.integers(0, min(2, entry.rows or 2), shape)
        case Role.BYTES:
            limits = np.iinfo(numpy_type(entry))
            return rng.integers(limits.min, limits.max, shape, endpoint=True)
        case Role.TEXT:
            return rng.choice(np.array(["a", "b", "c"], object), shape)
        case Role.WEIGHT:
            return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]))
        case Role.NUMBERS if len(shape) == PICTURE_RANK and min(shape[-2:]) >= SMALLEST_PICTURE:
            return _pictures(shape, rng)
        case _:
            return np.asarray(rng.standard_normal(shape))


def _pictures(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return dead leaves, [n, channels, height, width]: discs of all sizes and brightnesses, one over the other.

    They have the edges, even areas and spectrum of photographs: on ViT-Tiny the part that each weight has in the error
    goes with the one on photographs at a correlation of 0.88, on noise with a photograph's spectrum at 0.4. On white
    noise vision transformers see nothing, and their answers fall over at the smallest difference.
    """
    n, channels, height, width = shape
    side = min(height, width)
    # Sizes of which each octave covers the same area.
    least, most = max(1.0, side / 64), side / 2
    radius = 1 / np.sqrt(least**-2 + rng.random((_LEAVES, n)) * (most**-2 - least**-2))
    y, x = rng.random((_LEAVES, n)) * height, rng.random((_LEAVES, n)) * width
    brightness = rng.uniform(-1.2, 1.2, (_LEAVES, n, 1)) + 0.3 * rng.standard_normal((_LEAVES, n, channels))
    pictures = np.zeros(shape, np.float32)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    for leaf in range(_LEAVES):
        inside = np.hypot(rows - y[leaf, :, None, None], columns - x[leaf, :, None, None]) < radius[leaf, :, None, None]
        np.copyto(pictures, brightness[leaf, :, :, None, None].astype(np.float32), where=inside[:, None])
    return pictures


def _lengths(shape: tuple[int, ...], longest: int, feed: int) -> Array:
    """Return a length per row: every second row, from row 1 or (odd feeds) 0 on, a quarter shorter."""
    row = np.indices(shape).sum(axis=0) if shape else np.zeros((), np.int64)
    return np.where((row + feed) % 2 == 1, max(1, longest - -(-longest // 4)), longest)


def _padded(shape: tuple[int, ...], feed: int) -> Array:
    """Return ones with zeros at the end of every second row of the first axis."""
    if len(shape) < 2:
        return np.ones(shape, np.int64)
    valid = _lengths(shape[:1], shape[-1], feed).reshape(-1, *[1] * (len(shape) - 1))
    return (np.arange(shape[-1]) < valid) * np.ones(shape, np.int64)


def _control(name: str, sizes: Mapping[str, int]) -> float:
    follows, more = next((size, more) for pattern, size, more in CONTROLS if re.search(pattern, name))
    return sizes.get(follows, 0) + more if follows else more
