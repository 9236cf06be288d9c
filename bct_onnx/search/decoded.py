"""Codes of 8 bits that stand for the numbers of narrower ones: a file of them answers the same, and loads at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bct_onnx.search.memoize import moved
from passes import Coder
from passes.formats import trellis
from passes.formats.block import BlockFormat, BlockTensor, round_up
from passes.formats.threads import even_width, over_ranges
from passes.graph.editor import Move

# The format of codes that are their numbers, and columns that a thread decodes at a time.
WHOLE_BYTES = BlockFormat.shifted(8, 0)
COLUMNS = 384


def decoded(coder: Coder, move: Move = lambda array: array) -> Coder:
    """Return a coder with what a session decodes the codes of `coder`, one with a memory, to; `move` is told of it.

    Codes of which no int8 is made stay as they are.
    """
    known: dict[int, tuple[BlockTensor, BlockTensor]] = {}

    def code(weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int) -> BlockTensor:
        tensor = coder(weight, fmt, activation, workers)
        if not tensor.format.whole_bytes or tensor.format.bits == WHOLE_BYTES.bits:
            return tensor
        if id(tensor) not in known:
            # With the tensor itself, whose number no other then gets.
            known[id(tensor)] = tensor, moved(in_whole_bytes(tensor, workers), move)
        return known[id(tensor)][1]

    return code


def in_whole_bytes(tensor: BlockTensor, workers: int) -> BlockTensor:
    """Return codes of 8 bits without shifts that stand for the same numbers, and lie in memory the same way.

    The tensor's format is one of `whole_bytes`.
    """
    (blocks, rows, n), k = tensor.codes.shape, round_up(tensor.k)
    by_columns = tensor.codes.strides[2] > tensor.codes.strides[1]
    made = np.empty((n, k), np.int8).T if by_columns else np.empty((k, n), np.int8)

    def read(columns: slice) -> None:
        codes = tensor.codes[:, :, columns].reshape(blocks * rows, -1)
        numbers = trellis.values(codes, tensor.format.bits) if tensor.format.trellis else codes
        shifts = tensor.exponents[:, None, columns].view(np.int8)
        made[:, columns] = np.left_shift(numbers.reshape(blocks, rows, -1), shifts).reshape(blocks * rows, -1)[:k]

    over_ranges(read, n, even_width(n, COLUMNS), workers)
    whole = made.T.reshape(n, 1, k).transpose(1, 2, 0) if by_columns else made.reshape(1, k, n)
    return replace(tensor, format=WHOLE_BYTES, codes=whole, exponents=np.zeros((1, n), np.uint8))
