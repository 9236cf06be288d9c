"""Values for one input of a known role and shape."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bct_onnx.errors import BctError
from bct_onnx.verify.inputs import CONTROLS, ModelInput, Role

Array = NDArray[Any]
Value = Array | list[Array]

_UNKNOWN_ROWS = 100  # of a table that is computed, not stored
_PADDED = -1e4  # what an additive mask adds; float16 holds it
_UNFEEDABLE = (
    "input {name!r} has element type {type}, which the Python interface of ONNX Runtime cannot be fed"
)


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
    value = _draw(entry, shape, sizes, rng, plain).astype(numpy_type(entry))
    return [value, value] if entry.container == "sequence" else value


def _draw(  # noqa: C901, PLR0911 - a table by role
    entry: ModelInput, shape: tuple[int, ...], sizes: Mapping[str, int], rng: np.random.Generator, plain: bool
) -> Array:
    rows = entry.rows or (2 if entry.role is Role.TYPES else _UNKNOWN_ROWS)
    ones = np.ones(shape, np.int64)
    match entry.role:
        case Role.IDS | Role.TYPES:
            return rng.integers(0, min(2, rows) if plain or entry.role is Role.TYPES else rows, shape)
        case Role.POSITIONS:
            count = sizes["past"] + np.arange(shape[-1] if shape else 1)
            return ones * (count % (entry.rows or np.iinfo(np.int32).max)).reshape(-1 if shape else ())
        case Role.MASK | Role.ADDITIVE_MASK:
            valid = ones if plain else _padded(shape, sizes["feed"])
            return (1 - valid) * _PADDED if entry.role is Role.ADDITIVE_MASK else valid
        case Role.LENGTHS:
            return ones * sizes["total"] if plain else _lengths(shape, sizes["total"], sizes["feed"])
        case Role.CONTROL:
            return np.asarray(ones * _control(entry.name.lower(), shape, sizes))
        case Role.CACHE_FLAG:
            return ones * sizes.get("cached", int(sizes["past"] > 0))
        case Role.FLAG:
            return ones * (sizes["feed"] % 2)
        case Role.BYTES:
            limits = np.iinfo(numpy_type(entry))
            return rng.integers(limits.min, limits.max, shape, endpoint=True)
        case Role.INDICES:
            return rng.integers(0, 2, shape)
        case Role.TEXT:
            return rng.choice(np.array(["a", "b", "c"], object), shape)
        case Role.WEIGHT:
            return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]))
        case _:
            return np.asarray(rng.standard_normal(shape))


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


def _control(name: str, shape: tuple[int, ...], sizes: Mapping[str, int]) -> float:
    for pattern, follows, more in CONTROLS:
        if re.search(pattern, name):
            return sizes.get(follows, 0) + more if follows else more
    # Named otherwise, recognized by its place in GroupQueryAttention: a length of each row, or of all.
    return sizes["total"] - 1 if shape and shape != (1,) else sizes["total"]
