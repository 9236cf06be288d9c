"""What the channels of activations hold on some inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bct_onnx.arrays import Feed
from bct_onnx.search.grams import open_with_outputs
from passes import ChannelRange


def channel_ranges(path: Path, names: Iterable[str], feeds: Sequence[Feed]) -> dict[str, ChannelRange]:
    """Return lowest, mean and highest value of each channel of the named activations, [..., width], over all feeds.

    BctError where ONNX Runtime does not load the model.
    """
    session, known = open_with_outputs(path, names)
    if not known:
        return {}
    rows: dict[str, list[tuple[NDArray[np.floating], ...]]] = {name: [] for name in known}
    for feed in feeds:
        for name, array in session.run(feed, known).items():
            if array.ndim > 1 and array.size and array.dtype == np.float32:
                flat = array.reshape(-1, array.shape[-1])
                rows[name].append((flat.min(axis=0), flat.mean(axis=0), flat.max(axis=0)))
    return {name: _joined(parts) for name, parts in rows.items() if parts and _is_even(parts)}


def _joined(parts: Sequence[tuple[NDArray[np.floating], ...]]) -> ChannelRange:
    lowest, mean, highest = (np.stack(part) for part in zip(*parts, strict=True))
    return ChannelRange(lowest.min(axis=0), mean.mean(axis=0), highest.max(axis=0))


def _is_even(parts: Sequence[tuple[NDArray[np.floating], ...]]) -> bool:
    """Tell whether all feeds have the same finite channels."""
    return len({part[0].shape for part in parts}) == 1 and all(np.isfinite(part).all() for part in parts)
