"""Codes that are quickly made and stand for those of a file that is not written: as harmful as they, or as large."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from passes import plain_codes
from passes.formats.block import BlockFormat, BlockTensor
from passes.formats.column_scale import TINY, largest_of_columns
from passes.formats.encode import encode, largest_size

# Numbers of a weight that tell how its error goes with the width of its codes, and columns that they are taken of.
SAMPLE_NUMBERS, FEWEST_COLUMNS, MOST_COLUMNS = 1 << 15, 24, 48
# Columns with the largest numbers that are looked at besides.
LARGEST_COLUMNS = 16
# Columns whose noise is drawn at a time.
PIECE = 1024
# Width of the codes that noisy weights are written with: their own error is next to none.
WRITTEN_BITS = 8


@dataclass(frozen=True)
class Sample:
    """Columns of a weight that tell how its error goes with the width of its codes.

    A number that is far larger than the others sets the step of its column: such a column may err by more than all
    others together, and is not taken to stand for any of them.

    Attributes:
        largest: the columns with the largest numbers, float32 [k, up to 16].
        others: some of the others, float32 [k, up to 48].
        times: how many columns each of them stands for.
    """

    largest: NDArray[np.float32]
    others: NDArray[np.float32]
    times: float

    def error(self, fmt: BlockFormat, workers: int) -> float:
        """Return the squared error of codes as a part of the squares of the weight; 0 for zeros."""
        first, second = (encode(columns, fmt, workers) for columns in (self.largest, self.others))
        signal = first.signal + self.times * second.signal
        return (first.noise + self.times * second.noise) / signal if signal else 0.0


def take_sample(matrix: NDArray[np.floating], workers: int = 1) -> Sample:
    """Return a sample of a [k, n] weight, the same for the same weight."""
    n = matrix.shape[1]
    by_size = np.argsort(-largest_of_columns(matrix, workers), kind="stable")
    largest, others = np.sort(by_size[:LARGEST_COLUMNS]), by_size[LARGEST_COLUMNS:]
    some = others[_evenly(len(others), matrix.shape[0])]
    first, second = (np.ascontiguousarray(matrix[:, columns], np.float32) for columns in (largest, some))
    return Sample(first, second, (n - len(largest)) / max(1, len(some)))


def sample_columns(matrix: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return some columns of a [k, n] weight, evenly from all of it: float32 [k, up to 48]."""
    k, n = matrix.shape
    return np.ascontiguousarray(matrix[:, _evenly(n, k)], np.float32)


def disturbed(matrix: NDArray[np.floating], part: float) -> tuple[NDArray[np.float32], float]:
    """Return a finite [k, n] weight with noise of that part of its squares, about, and the part that it really is.

    Each column errs as the best codes of that error do: it shrinks by the part, and the rest is noise that has nothing
    to do with it. The same weight gets the same noise.
    """
    k, n = matrix.shape
    # Noise of different weights has nothing in common: errors that do add up.
    rng = np.random.Generator(np.random.SFC64(int.from_bytes(_digest(sample_columns(matrix)), "little")))
    by_rows = matrix.strides[0] < matrix.strides[1]
    # The result lies in memory as the weight does.
    made = np.empty((n, k), np.float32).T if by_rows else np.empty((k, n), np.float32)
    unit = np.float32(2.0 ** math.ceil(math.log2(max(largest_size(matrix), float(TINY)))))
    noise = signal = 0.0
    # Uniform numbers in [0, 1) have a variance of a twelfth.
    spread = math.sqrt(12 * part * (1 - part))
    for start in range(0, n, PIECE):
        columns = slice(start, min(start + PIECE, n))
        # In units of a power of two, squares of the tiniest and the hugest weights are within the range of float32.
        weight = np.asarray(matrix[:, columns], np.float32) / unit
        size = np.sqrt(np.square(weight).mean(axis=0))
        drawn = rng.random(weight.shape[::-1], np.float32).T if by_rows else rng.random(weight.shape, np.float32)
        drawn -= np.float32(0.5)
        drawn *= size * np.float32(spread)
        drawn -= weight * np.float32(part)
        np.add(weight, drawn, out=weight)
        made[:, columns] = weight * unit
        noise += float(np.vdot(drawn, drawn))
        signal += k * float(np.square(size, dtype=np.float64).sum())
    return made, noise / signal if signal else 0.0


class NoisyCodes:
    """A coder for tries: codes of 8 bits, quickly made and loaded, of weights with the noise of the codes asked for.

    Formats without a trellis are made quickly, too, and get their own codes.
    """

    def __init__(self) -> None:
        """Begin to remember what codes err by."""
        self._parts: dict[tuple[bytes, BlockFormat], float] = {}

    def __call__(
        self, weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int
    ) -> BlockTensor:
        """Return codes of 8 bits in a format like `fmt`."""
        if not fmt.trellis:
            return plain_codes(weight, fmt, activation, workers)
        part = self._part(weight, fmt, workers)
        noisy = disturbed(weight, part)[0] if part else weight
        return encode(noisy, BlockFormat.shifted(WRITTEN_BITS, 0), workers)

    def _part(self, weight: NDArray[np.floating], fmt: BlockFormat, workers: int) -> float:
        sample = sample_columns(weight)
        key = (_digest(sample), fmt)
        if key not in self._parts:
            self._parts[key] = take_sample(weight, workers).error(fmt, workers)
        return self._parts[key]


def codes_of_size(weight: NDArray[np.floating], fmt: BlockFormat, activation: str | None, workers: int) -> BlockTensor:
    """Return codes that mean nothing, for the bytes of a file: drawn, those of equal weights alike."""
    del activation, workers
    (k, n), (blocks, rows) = weight.shape, fmt.blocks(weight.shape[0])
    rng = np.random.default_rng(int.from_bytes(_digest(sample_columns(weight)), "little"))
    codes = rng.integers(fmt.low, fmt.high + 1, (blocks, rows, n), np.int8)
    codes.reshape(blocks * rows, n)[k:] = 0
    exponents = rng.integers(0, fmt.max_exponent + 1, (blocks, n), np.uint8)
    scale = np.asarray(rng.uniform(0.5, 1, n), np.float16)
    return BlockTensor(fmt, k, codes, exponents, scale, 1.0, 0.0, 1.0)


def _digest(sample: NDArray[np.float32]) -> bytes:
    return hashlib.blake2b(repr(sample.shape).encode() + sample.tobytes(), digest_size=16).digest()


def _evenly(n: int, k: int) -> NDArray[np.int64]:
    """Return numbers below n, from the first to the last: as many as columns of k numbers are taken."""
    count = min(n, MOST_COLUMNS, max(FEWEST_COLUMNS, SAMPLE_NUMBERS // max(k, 1)))
    return np.unique(np.linspace(0, n - 1, count).astype(np.int64))
