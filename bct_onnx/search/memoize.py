"""Codes that are made once for all the files of a search."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from passes import Coder
from passes.formats.block import BlockFormat, BlockTensor
from passes.graph.editor import Move


def memoized(coder: Coder, move: Move = lambda array: array) -> Coder:
    """Return the coder with a memory: a byte for each weight and width that was asked for, where `move` puts it."""
    known: dict[tuple[bytes, BlockFormat, str | None], BlockTensor] = {}

    def code(weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int) -> BlockTensor:
        content = hashlib.blake2b(np.ascontiguousarray(weight).data, digest_size=16)
        content.update(repr((weight.shape, weight.dtype)).encode())
        key = (content.digest(), fmt, activation)
        if key not in known:
            known[key] = _moved(coder(weight, fmt, activation, workers), move)
        return known[key]

    return code


def _moved(tensor: BlockTensor, move: Move) -> BlockTensor:
    """Return a tensor whose codes, [blocks, rows, n], are where `move` puts them, in the order in which they lie."""
    order = np.argsort([-stride for stride in tensor.codes.strides], kind="stable")
    codes = move(tensor.codes.transpose(order)).transpose(np.argsort(order))
    return replace(tensor, codes=codes)
