"""Codes and zero points as the runtime's n-bit kernels have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..formats.block import BlockFormat
from ..formats.planes import pack_nibbles
from ..formats.threads import over_ranges

# Columns that a thread packs at a time: a row's part is two lines of a cache, all of them stay in the second level.
COLUMNS = 128
# What a zero point of zero is among codes that count from zero.
MIDDLE = 8


def pack(codes: NDArray[np.int8], fmt: BlockFormat, workers: int) -> NDArray[np.uint8]:
    """Return codes [blocks, rows, n] as [n, blocks, block bytes], around 2^(bits-1), the first of a byte lowest."""
    blocks, rows, n = codes.shape
    packed = np.empty((n, blocks, rows * fmt.bits // 8), np.uint8)

    def pack_range(columns: slice) -> None:
        packed[columns] = _pack_columns(in_columns(codes[:, :, columns]), fmt)

    over_ranges(pack_range, n, COLUMNS, workers)
    return packed


def in_columns(codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return codes [blocks, rows, n] as [n, blocks, rows]."""
    return np.ascontiguousarray(codes.transpose(2, 0, 1))


def _pack_columns(codes: NDArray[np.int8], fmt: BlockFormat) -> NDArray[np.uint8]:
    """Return [n, blocks, block bytes] of codes [n, blocks, rows]."""
    unsigned = (codes.view(np.uint8) + np.uint8(-fmt.low)) & np.uint8((1 << fmt.bits) - 1)
    shape = codes.shape[:2]
    if fmt.bits == 8:
        return unsigned
    if fmt.bits == 4:
        return pack_nibbles(unsigned.reshape(-1)).reshape(*shape, -1)
    return pack_nibbles(pack_pairs(unsigned.reshape(-1))).reshape(*shape, -1)


def pack_pairs(pieces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return [m] values below 4 as [m / 2] values below 16."""
    return pieces[0::2] | (pieces[1::2] << np.uint8(2))


def pack_zeros(zeros: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return zero points [blocks, n] as MatMulNBits has them, uint8 [n, blocks / 2]: around 8, the first lowest."""
    blocks, n = zeros.shape
    padded = np.zeros((n, blocks + blocks % 2), np.uint8)
    padded[:, :blocks] = zeros.T + np.int8(MIDDLE)
    return pack_nibbles(padded.reshape(-1)).reshape(n, -1)
