"""Values for one input of a known role and shape."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from bct_onnx.arrays import Array, Value
from bct_onnx.errors import BctError
from bct_onnx.inputs.roles import CONTROLS, Draw, ModelInput, Role

_UNKNOWN_ROWS = 100  # of a table that is computed, not stored
_PADDED = -1e4  # what an additive mask adds; float16 holds it
_UNFEEDABLE = "input {name!r} has element type {type}, which the Python interface of ONNX Runtime cannot be fed"


# Rows that token numbers for models that bear no more are of.
_PLAIN_ROWS = 2
PICTURE_RANK, SMALLEST_PICTURE = 4, 8
# Inputs that hold sound or its spectrum, samples that are alike, and those over which it swells.
SOUND = re.compile("input_features|input_values|audio|wave|speech|mel|frames")
NEIGHBOURS, SWELL = 4, 64
# Tokens from which words repeat.
_SHORTEST_TEXT = 4
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


def _counted(  # noqa: PLR0911 - a table by role
    entry: ModelInput, shape: tuple[int, ...], sizes: Mapping[str, int], plain: bool
) -> Array | None:
    """Return values that follow from sizes alone, None for a role whose values are drawn."""
    ones = np.ones(shape, np.int64)
    match entry.role:
        case Role.POSITIONS:
            count = sizes["past"] + np.arange(shape[-1] if shape else 1)
            return ones * (count % (entry.table_rows or np.iinfo(np.int32).max)).reshape(-1 if shape else ())
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
            rows = entry.table_rows or _UNKNOWN_ROWS
            return rng.integers(0, min(_PLAIN_ROWS, rows), shape) if plain else _text(entry.draw, rows, shape, rng)
        case Role.TYPES | Role.INDICES:
            rows = min(_PLAIN_ROWS, entry.table_rows or _PLAIN_ROWS)
            return (
                rng.integers(0, rows, shape) if entry.role is Role.INDICES else _types(0 if plain else rows, shape, rng)
            )
        case Role.BYTES:
            limits = np.iinfo(numpy_type(entry))
            return rng.integers(limits.min, limits.max, shape, endpoint=True)
        case Role.TEXT:
            return rng.choice(np.array(["a", "b", "c"], object), shape)
        case Role.WEIGHT:
            return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]))
        case Role.NUMBERS if len(shape) == PICTURE_RANK and min(shape[-2:]) >= SMALLEST_PICTURE:
            return _at_scale(_pictures(shape, rng), entry)
        case Role.NUMBERS if shape and SOUND.search(entry.name.lower()):
            return _at_scale(_sound(shape, rng), entry)
        case _:
            return _at_scale(np.asarray(rng.standard_normal(shape)), entry)


def _text(draw: Draw | None, rows: int, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return sentences where there are some, else numbers of a table's rows in which words repeat as in a text.

    Every row of the batch has its own few, the n-th of them drawn as often as 1 / n (Zipf). With all words different,
    rows that are averaged over their tokens would hardly differ in their answers.
    """
    if not shape or shape[-1] < _SHORTEST_TEXT:
        return rng.integers(0, rows, shape)
    if draw:
        return draw(shape, rng)
    known = shape[-1] // 2
    own = rng.integers(0, rows, (*shape[:-1], known))
    often = 1 / np.arange(1, known + 1)
    return np.take_along_axis(own, rng.choice(known, shape, p=often / often.sum()), axis=-1)


def _types(rows: int, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return 0 for a first text and 1 for a second one behind it, which every other row has; 0 where that is all."""
    if not shape or rows < _PLAIN_ROWS:
        return np.zeros(shape)
    first = rng.integers(1, shape[-1] + 1, (*shape[:-1], 1))
    alone = np.indices((*shape[:-1], 1)).sum(axis=0) % 2 == 0
    return np.where(alone, 0, np.arange(shape[-1]) >= first)


def _at_scale(array: Array, entry: ModelInput) -> Array:
    """Return standard numbers with the mean and scale that the model expects."""
    if entry.mean is None or entry.scale is None:
        return array
    channels = max(entry.mean.size, entry.scale.size)
    last = channels in (1, array.shape[-1] if array.ndim else 1)
    if not last and (array.ndim < 2 or array.shape[1] != channels):
        return array
    turned = array if last else np.moveaxis(array, 1, -1)
    turned = entry.mean.reshape(-1) + entry.scale.reshape(-1) * turned
    return np.asarray(turned if last else np.moveaxis(turned, -1, 1))


def _sound(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return noise of unit size that swells and fades and whose neighbours are alike, as in speech."""
    length = shape[-1] + SWELL
    noise = rng.standard_normal((*shape[:-1], length + NEIGHBOURS))
    total = np.cumsum(noise, axis=-1)
    alike = (total[..., NEIGHBOURS:] - total[..., :-NEIGHBOURS]) / np.sqrt(NEIGHBOURS)
    total = np.cumsum(rng.standard_normal((*shape[:1], *[1] * (len(shape) - 2), length)), axis=-1)
    swell = np.exp((total[..., SWELL:] - total[..., :-SWELL]) / np.sqrt(SWELL))
    sound = alike[..., : shape[-1]] * swell
    return np.asarray(sound / max(float(np.sqrt(np.square(sound).mean())), np.finfo(np.float32).tiny))


def _pictures(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return dead leaves, [n, channels, height, width]: discs of all sizes and brightnesses, one over the other.

    They have the edges, even areas and spectrum of photographs: on ViT-Tiny the part that each weight has in the error
    goes with the one on photographs at a correlation of 0.88, on noise with a photograph's spectrum at 0.4. On white
    noise vision transformers see nothing, and their answers fall over at the smallest difference.
    """
    n, channels, height, width = shape
    side = min(height, width)
    # Pictures differ in how large things are, in contrast, and in colour, or their answers would hardly differ.
    finest, contrast = side * 2.0 ** rng.uniform(-6, -1.5, n), 2.0 ** rng.uniform(-2, 0.5, (n, 1))
    tint = rng.uniform(-0.8, 0.8, (n, 1)) + rng.uniform(-0.4, 0.4, (n, channels))
    # Sizes of which each octave covers the same area.
    least, most = np.maximum(1.0, finest), side / 2
    radius = 1 / np.sqrt(least**-2 + rng.random((_LEAVES, n)) * (most**-2 - least**-2))
    y, x = rng.random((_LEAVES, n)) * height, rng.random((_LEAVES, n)) * width
    brightness = rng.uniform(-1.2, 1.2, (_LEAVES, n, 1)) + 0.5 * rng.standard_normal((_LEAVES, n, channels))
    brightness = tint + contrast * brightness
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
