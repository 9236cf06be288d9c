"""Codes that are made once for all the files of a search."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from passes import Coder
from passes.formats.block import BlockFormat, BlockTensor
from passes.formats.threads import over_ranges
from passes.graph.editor import Move

# Bytes of a digest, and of a part of a weight that a thread reads.
DIGEST, PART_BYTES = 16, 1 << 20


def memoized(coder: Coder, move: Move = lambda array: array) -> Coder:
    """Return the coder with a memory: a byte for each weight and width that was asked for, where `move` puts it."""
    known: dict[tuple[bytes, BlockFormat, str | None], BlockTensor] = {}

    def code(weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int) -> BlockTensor:
        key = (_digest(weight, workers), fmt, activation)
        if key not in known:
            known[key] = moved(coder(weight, fmt, activation, workers), move)
        return known[key]

    return code


def _digest(weight: NDArray[np.floating], workers: int) -> bytes:
    """Return what tells weights apart that differ in shape, in how they lie in memory, or in any bit."""
    by_columns = weight.flags.f_contiguous and not weight.flags.c_contiguous
    flat = np.ascontiguousarray(weight.T if by_columns else weight).reshape(-1).view(np.uint8)

    def read(part: slice) -> bytes:
        return hashlib.blake2b(flat[part].data, digest_size=DIGEST).digest()

    parts = over_ranges(read, len(flat), PART_BYTES, workers)
    whole = f"{weight.shape} {weight.dtype} {by_columns}".encode()
    return hashlib.blake2b(b"".join([whole, *parts]), digest_size=DIGEST).digest()


def moved(tensor: BlockTensor, move: Move) -> BlockTensor:
    """Return a tensor whose codes, [blocks, rows, n], are where `move` puts them, in the order in which they lie."""
    order = np.argsort([-stride for stride in tensor.codes.strides], kind="stable")
    codes = move(tensor.codes.transpose(order)).transpose(np.argsort(order))
    return replace(tensor, codes=codes)
