"""Feeds for a model: made from its own inputs, or read from a file."""

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto

from bct_onnx.arrays import Array, Feed
from bct_onnx.errors import BctError
from bct_onnx.inputs.flow import flatten
from bct_onnx.inputs.roles import ModelInput, find_inputs
from bct_onnx.inputs.sizes import PLANS, axis_kinds, complete, concrete_shape, fallbacks
from bct_onnx.inputs.values import make_value, numpy_type, redraw

# Elements of an input beyond which numpy cannot even count bytes.
_MOST_ELEMENTS = 1 << 48


def candidate_feeds(model: ModelProto, seed: int) -> Iterator[Iterator[Feed]]:
    """Yield groups of feeds, the likeliest group first; take from the first group in which any runs.

    Each group has at most four feeds of different sizes, each made when asked for. The same seed
    gives the same feeds. BctError when an input's type cannot be fed, MemoryError when its size cannot.
    """
    flow = flatten(model)
    inputs = find_inputs(model, flow)
    kinds = axis_kinds(inputs)
    tried: set[object] = set()

    def group(change: Mapping[str, int], plain: bool) -> Iterator[Feed]:
        seen_before = frozenset(tried)
        for number, plan in enumerate(PLANS):
            sizes = complete({**plan, **change, "feed": number}, inputs)
            shapes = {entry.name: concrete_shape(entry, kinds, sizes) for entry in inputs}
            key = (plain, sizes["past"], *shapes.values())
            if key in seen_before:
                continue
            if any(math.prod(shape) > _MOST_ELEMENTS for shape in shapes.values()):
                raise MemoryError("an input is declared larger than any memory")
            tried.add(key)
            rng = np.random.default_rng([seed, number])
            yield {e.name: make_value(e, shapes[e.name], sizes, rng, plain) for e in inputs}

    for change in fallbacks(inputs, flow):
        for plain in (False, True):
            yield group(change, plain)


def redrawn(model: ModelProto, feeds: Sequence[Feed], seed: int) -> list[Feed]:
    """Return feeds like those that `candidate_feeds` made for the model: what is drawn in them is drawn anew."""
    inputs = find_inputs(model, flatten(model))
    generators = [np.random.default_rng([seed, number]) for number in range(len(feeds))]
    return [
        {entry.name: redraw(entry, feed[entry.name], rng) for entry in inputs}
        for feed, rng in zip(feeds, generators, strict=True)
    ]


def load_feeds(path: str | Path, model: ModelProto) -> list[Feed]:
    """Read feeds from an .npz: arrays `name` (in every feed) or `name.0`, `name.1`, ... (one a feed).

    BctError names the file and the array when the file cannot be read, a name, type or rank is not
    the model's, or an input is missing. Inputs of type bfloat16 are given as float32.
    """
    inputs = {entry.name: entry for entry in find_inputs(model, flatten(model))}
    shared: dict[str, Array] = {}
    numbered: dict[int, dict[str, Array]] = {}
    for key, array in _read(Path(path)).items():
        name, _, suffix = key.rpartition(".")
        if key in inputs:
            shared[key] = array
        elif name in inputs and suffix.isdecimal():
            numbered.setdefault(int(suffix), {})[name] = array
        else:
            raise BctError(f"{path}: {key!r} is not an input of the model; it has {', '.join(inputs)}")
        _check(path, key, array, inputs[key if key in inputs else name])
    feeds: list[Feed] = []
    for number, own in sorted(numbered.items()) or [(0, {})]:
        feeds.append({**shared, **own})
        missing = sorted(inputs.keys() - feeds[-1].keys())
        if missing:
            raise BctError(f"{path}: feed {number} has no array for input {missing[0]!r}")
    return feeds


def _read(path: Path) -> dict[str, Array]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise BctError(f"{path}: holds a single array; save named arrays with numpy.savez")
        with archive:
            return dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        reason = "file not found" if isinstance(error, FileNotFoundError) else "not a readable .npz file"
        raise BctError(f"{path}: {reason}; save named arrays with numpy.savez") from error


def _check(path: str | Path, key: str, array: Array, entry: ModelInput) -> None:
    wanted = numpy_type(entry)
    if array.dtype != wanted and not (wanted.kind == "O" and array.dtype.kind in "US"):
        raise BctError(f"{path}: {key!r} is {array.dtype}, the model's input {entry.name!r} is {wanted}")
    if array.ndim != len(entry.shape):
        raise BctError(
            f"{path}: {key!r} has shape {list(array.shape)}, the model's input {entry.name!r} is {list(entry.shape)}"
        )
