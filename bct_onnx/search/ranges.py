"""What the channels of activations hold on some inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from bct_onnx.arrays import Feed, Outputs
from bct_onnx.search.grams import open_with_outputs
from passes import ChannelRange, Options, make_plain
from passes.graph.linear import Linear, match_linear
from passes.graph.walk import output_names, walk
from passes.layer_normalization.form import Normalization, match_normalization

# Rows kept of an activation, the same number of every feed.
MOST_ROWS = 256


def normalized_inputs(graph: gs.Graph) -> list[str]:
    """Return the names of normalizations that products with constant weights read; the graph is changed."""
    make_plain(graph, Options())
    outputs = output_names(graph)
    linears = [linear for _, node in walk(graph) if isinstance(linear := match_linear(node), Linear)]
    read = {linear.x.name: linear.x for linear in linears if linear.x.inputs}
    forms = {name: match_normalization(x.inputs[0], lambda tensor: tensor.name in outputs) for name, x in read.items()}
    return [name for name, form in forms.items() if isinstance(form, Normalization)]


def channel_ranges(
    path: Path, names: Iterable[str], feeds: Sequence[Feed], place: Path | None = None
) -> dict[str, ChannelRange]:
    """Return what the channels of the named activations, [..., width], hold over all feeds, and some rows of them.

    `place`, and what is raised, as `open_with_outputs` has it.
    """
    session, known = open_with_outputs(path, names, place)
    return ranges_of((session.run(feed, known) for feed in feeds), known, len(feeds)) if known else {}


def ranges_of(answers: Iterable[Outputs], names: Iterable[str], count: int) -> dict[str, ChannelRange]:
    """Return what the channels of the named activations hold over a model's answers to so many feeds."""
    parts: dict[str, list[ChannelRange]] = {name: [] for name in names}
    for answer in answers:
        for name in parts.keys() & answer.keys():
            array = answer[name]
            if array.ndim > 1 and array.size and array.dtype == np.float32:
                parts[name].append(_range(array.reshape(-1, array.shape[-1]), -(-MOST_ROWS // count)))
    return {name: _joined(found) for name, found in parts.items() if found and _is_even(found)}


def _range(rows: NDArray[np.floating], most: int) -> ChannelRange:
    """Return what the channels of rows hold, and at most so many of them."""
    some = np.sort(np.random.default_rng(0).permutation(len(rows))[:most])
    return ChannelRange(rows.min(axis=0), rows.mean(axis=0), rows.max(axis=0), rows[some])


def _joined(parts: Sequence[ChannelRange]) -> ChannelRange:
    lowest = np.min([part.lowest for part in parts], axis=0)
    highest = np.max([part.highest for part in parts], axis=0)
    mean = np.mean([part.mean for part in parts], axis=0)
    return ChannelRange(lowest, mean, highest, np.concatenate([part.rows for part in parts]))


def _is_even(parts: Sequence[ChannelRange]) -> bool:
    """Tell whether all feeds have the same finite channels."""
    shapes = {part.mean.shape for part in parts}
    return len(shapes) == 1 and all(np.isfinite([part.lowest, part.mean, part.highest]).all() for part in parts)
