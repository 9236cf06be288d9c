"""Blockwise codes with power-of-two block scales and one scale per column."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from . import trellis

# Shifts that a scale carries: half a byte each. Blocks down to 2^-15 of a column's largest value keep all their bits.
LARGEST_SHIFT = 15
# Multiples of a column's scale that a block's is, half a byte each. At 4 bits, -8 * 15 still fits an int8.
LARGEST_MULTIPLE = 15
WIDEST_MULTIPLIED = 4

Codes = NDArray[np.int8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class BlockFormat:
    """How one [k, n] weight is stored.

    Attributes:
        bits: width of a code, 2 to 8, two's complement over the full range [-2^(bits-1), 2^(bits-1) - 1].
        block_size: neighbours along k that share an exponent, a multiple of 8; 0 for the whole column.
        steps: exponents per octave: 1 for shifts (powers of two), 4 for fine scales, 2^(i/4).
        max_exponent: the largest exponent; exponents are 0 to max_exponent.
        whole: True where an exponent e stands for the whole number e + 1 instead of a power of two.
        offset: True where the codes of a block may count from a zero point of its own.
        powers: True where column scales are powers of two as well, so that the scale of every block is a shift.
        trellis: True where what a code stands for depends on the codes before it, see `trellis`.
    """

    bits: int
    block_size: int
    steps: int = 1
    max_exponent: int = 0
    powers: bool = False
    trellis: bool = False
    whole: bool = False
    offset: bool = False

    @classmethod
    def shifted(cls, bits: int, block_size: int) -> BlockFormat:
        """Return the format with shifts of 0 and 1, whose `code << exponent` fits an int8.

        A second bit of exponent gains less than smaller blocks do: at 4 bits, ViT-Tiny's weights, blocks of 8 with two
        shifts are 1.3 dB better than blocks of 32 with five, in the same bytes.
        """
        return cls(bits, block_size, steps=1, max_exponent=min(1, 8 - bits) if block_size else 0)

    @classmethod
    def best(cls, bits: int, block_size: int) -> BlockFormat:
        """Return `shifted`, by a trellis at the widths that have one: the same bytes, and an int8 holds the rest.

        2 to 3 dB better at every width.
        """
        fmt = cls.shifted(bits, block_size)
        return replace(fmt, trellis=bits in trellis.WIDTHS)

    @classmethod
    def fine(cls, bits: int, block_size: int) -> BlockFormat:
        """Return the format with quarter-octave block scales over almost eight octaves."""
        return cls(bits, block_size, steps=4, max_exponent=31 if block_size else 0)

    @classmethod
    def multiples(cls, bits: int, block_size: int) -> BlockFormat:
        """Return the format whose block scales are 1 to 15 times the column's: codes times that are int8.

        So the same numbers are blocks of few bits with float scales, and int8 with a scale a column. Wider codes have
        the column's scale alone. Codes of half a byte may have zero points of half a byte.
        """
        most = LARGEST_MULTIPLE if block_size and bits <= WIDEST_MULTIPLIED else 1
        offset = most > 1 and bits == WIDEST_MULTIPLIED
        return cls(bits, block_size if most > 1 else 0, max_exponent=most - 1, whole=True, offset=offset)

    @classmethod
    def shifts_only(cls, bits: int, block_size: int) -> BlockFormat:
        """Return the format in which every block's scale is a power of two, over 15 octaves a column."""
        return cls(bits, block_size, steps=1, max_exponent=LARGEST_SHIFT, powers=True)

    @property
    def whole_bytes(self) -> bool:
        """Whether what codes stand for, times what their exponents do, is an int8 with one scale a column."""
        return self.steps == 1 and not self.whole and not self.powers

    @property
    def uniform(self) -> BlockFormat:
        """The same format with codes that stand for themselves."""
        return replace(self, trellis=False)

    @property
    def centered(self) -> BlockFormat:
        """The same format without zero points."""
        return replace(self, offset=False)

    @cached_property
    def factors(self) -> Floats:
        """What exponents stand for, by exponent: float32 [max_exponent + 1]."""
        exponents = np.arange(self.max_exponent + 1, dtype=np.float64)
        return (exponents + 1 if self.whole else np.exp2(exponents / self.steps)).astype(np.float32)

    @property
    def low(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1

    def blocks(self, k: int) -> tuple[int, int]:
        """Return (number of blocks, rows of a block) for k rows; only the last block is padded, to a multiple of 8."""
        rows = self.block_size or round_up(k)
        return -(-k // rows), rows


def round_up(k: int) -> int:
    """Return the next multiple of 8: what bit planes pack, and so the smallest block."""
    return -(-k // 8) * 8


@dataclass(frozen=True)
class BlockTensor:
    """A [k, n] weight as codes: value[i, j] = number * factors[exponent] * column_scale[j] * tensor_scale.

    The number is the code itself, less its block's zero point where there is one, or what it stands for in a trellis;
    factors are 2^(exponent / steps) or whole.

    Attributes:
        format: the format the arrays follow.
        k: rows of the weight, without padding.
        codes: int8 [blocks, block rows, n]; rows past k stand for zero, in a trellis but for their last bits.
        exponents: uint8 [blocks, n].
        column_scale: float16 [n], positive, or zero for zeros in a trellis, which has none; float32 where columns
            differ by more than float16 has bits for.
        tensor_scale: a power of two that keeps column_scale within float16's range.
        noise: sum of squared errors against the encoded weight.
        signal: sum of squares of the encoded weight.
        zeros: zero points, int8 [blocks, n], codes too; None where all are zero, as always but for an offset format.
    """

    format: BlockFormat
    k: int
    codes: Codes
    exponents: NDArray[np.uint8]
    column_scale: NDArray[np.floating]
    tensor_scale: float
    noise: float
    signal: float
    zeros: NDArray[np.int8] | None = field(default=None, kw_only=True)

    @property
    def n(self) -> int:
        """Columns of the weight."""
        return int(self.codes.shape[2])

    @cached_property
    def scale(self) -> Floats:
        """Float scale of each column, [n], without the block's exponent."""
        return np.asarray(self.column_scale, np.float32) * np.float32(self.tensor_scale)

    @property
    def numbers(self) -> Codes:
        """The numbers that the codes stand for, int8 like the codes."""
        if self.zeros is not None:
            return self.codes - self.zeros[:, None, :]
        if not self.format.trellis:
            return self.codes
        matrix = self.codes.reshape(-1, self.n)
        return trellis.values(matrix, self.format.bits).reshape(self.codes.shape)

    @property
    def limits(self) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """The least and the largest code of each block, int8 [blocks, n]: with a whole factor its number is an int8."""
        fmt = self.format
        zeros = np.zeros(self.exponents.shape, np.int8) if self.zeros is None else self.zeros
        if not fmt.whole:
            return zeros * 0 + fmt.low, zeros * 0 + fmt.high
        low, high = -(128 // (self.exponents.astype(np.int16) + 1)), 127 // (self.exponents.astype(np.int16) + 1)
        return (
            np.maximum(low + zeros, fmt.low).astype(np.int8),
            np.minimum(high + zeros, fmt.high).astype(np.int8),
        )

    @property
    def block_scale(self) -> Floats:
        """Float scale of each block, [blocks, n]."""
        return exponent_scale(self.exponents, self.format) * self.scale

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise ratio in decibels; infinite when every value is represented exactly."""
        if self.noise == 0:
            return float("inf")
        return float(10 * np.log10(self.signal / self.noise)) if self.signal else float("-inf")


def exponent_scale(exponents: NDArray[np.uint8], fmt: BlockFormat) -> Floats:
    """Return the factors that exponents stand for as float32, from a table so that equal exponents give equal bits."""
    return np.take(fmt.factors, exponents)


def decode(tensor: BlockTensor) -> Floats:
    """Return the float32 [k, n] weight that the codes stand for."""
    blocks = tensor.numbers.astype(np.float32) * tensor.block_scale[:, None, :]
    return blocks.reshape(-1, tensor.n)[: tensor.k]
