"""Codes that are made once for all the files of a search."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from passes import Coder
from passes.formats.block import BlockFormat, BlockTensor


def memoized(coder: Coder) -> Coder:
    """Return the coder with a memory: a byte for each weight and width that was asked for."""
    known: dict[tuple[bytes, BlockFormat, str | None], BlockTensor] = {}

    def code(weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int) -> BlockTensor:
        content = hashlib.blake2b(np.ascontiguousarray(weight).data, digest_size=16)
        content.update(repr((weight.shape, weight.dtype)).encode())
        key = (content.digest(), fmt, activation)
        if key not in known:
            known[key] = coder(weight, fmt, activation, workers)
        return known[key]

    return code
