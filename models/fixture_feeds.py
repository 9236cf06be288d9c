"""Inputs for the exporter fixtures: what their dimension names stand for, and feeds of any size."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCABULARY, IMAGE, MELS, FRAMES = 100, 12, 8, 24

# Sizes, or names of sizes: the keys of sizes().
Dims = tuple[int | str, ...]
Feeds = dict[str, NDArray[Any]]

# A type as ONNX Runtime writes it, in numpy.
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def sizes(batch: int, sequence: int, past: int, encoder: int) -> dict[str, int]:
    """Return the value of every dimension name that a fixture has."""
    ours = {"batch": batch, "sequence": sequence, "past": past, "total": past + sequence, "encoder": encoder}
    optimum = {
        "batch_size": batch,
        "sequence_length": sequence,
        "decoder_sequence_length": sequence,
        "past_sequence_length": past,
        "past_decoder_sequence_length": past,
        "past_sequence_length + sequence_length": past + sequence,
        "encoder_sequence_length": encoder,
        "num_channels": 3,
        "height": IMAGE,
        "width": IMAGE,
        "feature_size": MELS,
        "nb_max_frames": FRAMES,
    }
    return ours | optimum


EXPORT_SIZES = sizes(batch=2, sequence=5, past=3, encoder=6)
# Unlike the exported ones, so that a size the exporter froze into the graph shows.
RUN_SIZES = (sizes(batch=3, sequence=6, past=4, encoder=7), sizes(batch=1, sequence=1, past=7, encoder=3))


def make_feed(name: str, dtype: type[np.generic], shape: tuple[int, ...], past: int) -> NDArray[Any]:
    """Return a feed of the given shape: what the input's name asks for, else random with a fixed seed."""
    random = np.random.default_rng(0)
    if "mask" in name or dtype is np.bool_:
        return np.ones(shape, dtype)
    if name == "position_ids":
        return np.broadcast_to(np.arange(past, past + shape[1], dtype=dtype), shape)
    if dtype is np.int64:
        return random.integers(0, 2 if name == "token_type_ids" else VOCABULARY, shape)
    return random.standard_normal(shape).astype(dtype)


def make_feeds(inputs: Iterable[tuple[str, type[np.generic], Dims]], values: Mapping[str, int]) -> Feeds:
    """Return a feed for every (name, dtype, dims), with the sizes that the names of dims stand for."""
    feeds = {}
    for name, dtype, dims in inputs:
        shape = tuple(dim if isinstance(dim, int) else values[dim] for dim in dims)
        feeds[name] = make_feed(name, dtype, shape, values["past"])
    return feeds
