"""Blocks whose scales are powers of two and nothing else, multiplied in blocks: as published.

codes uint8 [n, blocks, block bytes], shifts uint4 [n, blocks]
x [..., k] -- MatMulNBits(accuracy_level 4) -> [..., n]: integer sums of a block at a time, x in int8 blocks too
"""

from __future__ import annotations

from dataclasses import dataclass

from ..formats.block import BlockFormat
from .base import TablesLikeWeights
from .packed import Packed, kernel_block


@dataclass
class Shifts(TablesLikeWeights, Packed):
    """Keep codes and shifts, and multiply as the packed weights are."""

    name: str = "shifts"

    def format(self, bits: int, block_size: int, k: int) -> BlockFormat:
        """Return the next width and block size that the kernel takes, with powers of two for all scales."""
        return BlockFormat.shifts_only(self.width(bits), kernel_block(block_size, k))
