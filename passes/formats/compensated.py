"""Codes that make up for each other's errors, given what the weight is multiplied with: GPTQ, arXiv 2210.17323."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .block import BlockFormat, BlockTensor, Floats, decode, exponent_scale
from .column_scale import TINY
from .encode import encode

# Part of the mean diagonal that is added to the diagonal. Published is 0.01, for far more samples: of 64 pictures for
# ViT-Tiny, 48 to fit and 16 to measure on, 0.1 leaves 2 to 6 % less error.
DAMPING = 0.1
# Rows rounded before what they leave is carried to the rest with one product.
STEP = 64
# Fewer samples than this many times k say too little of how the channels go together.
SAMPLES_PER_CHANNEL = 2


@dataclass(frozen=True)
class Gram:
    """What is known of an activation x, [samples, k].

    Attributes:
        matrix: x.T @ x / samples, float32 [k, k].
        samples: rows that were seen.
    """

    matrix: Floats
    samples: int

    @property
    def suffices(self) -> bool:
        """Tell whether there are samples enough for codes that rely on them."""
        return self.samples >= SAMPLES_PER_CHANNEL * len(self.matrix)


def compensate(weight: NDArray[np.floating], gram: Gram, fmt: BlockFormat, workers: int = 1) -> BlockTensor:
    """Return codes of a finite float [k, n] weight with a small error of `x @ weight`, for x as in `gram`, [k, k].

    Exponents and column scales are searched first, rows weighed by the size of their channel. Then the rows are rounded
    one after the other, the largest channels first, and the error of each is made up for by those that follow. Last,
    every column scale becomes the best one for the codes. Where that leaves a larger error than the search did (float16
    scales, few columns), the search's codes are returned. Codes stand for themselves, where `fmt` has a trellis, too.
    """
    k = len(weight)
    damped = gram.matrix.astype(np.float64)
    damped[np.diag_indices(k)] += DAMPING * max(float(damped.trace()) / k, TINY)
    start = encode(weight, fmt.uniform, workers, damped.diagonal())
    matrix = np.asarray(weight, np.float32)
    codes = _round_in_turn(matrix, damped, start)
    tensor = _rescale(replace(start, codes=codes), matrix, gram.matrix)
    if output_error(tensor, matrix, gram.matrix) >= output_error(start, matrix, gram.matrix):
        return start
    difference = decode(tensor) - matrix
    return replace(tensor, noise=float(np.vdot(difference, difference)))


def output_error(tensor: BlockTensor, weight: Floats, gram: Floats) -> float:
    """Return the mean squared error of `x @ weight`, summed over the columns."""
    difference = decode(tensor) - weight
    return float(np.vdot(gram @ difference, difference))


def _round_in_turn(weight: Floats, damped: NDArray[np.float64], start: BlockTensor) -> NDArray[np.int8]:
    """Return the codes, int8 [blocks, rows, n], under the scales of `start`."""
    k, n = weight.shape
    fmt, rows = start.format, start.codes.shape[1]
    order = np.argsort(-damped.diagonal(), kind="stable")
    # Upper triangle of the inverse's Cholesky factors, U.T @ U, without the inverse.
    lower = np.linalg.cholesky(damped[np.ix_(order[::-1], order[::-1])])
    upper = np.linalg.inv(lower)[::-1, ::-1].astype(np.float32)
    scale = start.block_scale[order // rows]
    left = weight[order]
    codes = np.empty((k, n), np.float32)
    for begin in range(0, k, STEP):
        end = min(begin + STEP, k)
        errors = np.empty((end - begin, n), np.float32)
        for row in range(begin, end):
            np.clip(np.rint(left[row] / scale[row]), fmt.low, fmt.high, out=codes[row])
            errors[row - begin] = (left[row] - codes[row] * scale[row]) / upper[row, row]
            left[row + 1 : end] -= upper[row, row + 1 : end, None] * errors[row - begin]
        left[end:] -= upper[begin:end, end:].T @ errors
    padded = np.zeros((start.codes.shape[0] * rows, n), np.int8)
    padded[order] = codes.astype(np.int8)
    return padded.reshape(start.codes.shape)


def _rescale(tensor: BlockTensor, weight: Floats, gram: Floats) -> BlockTensor:
    """Give each column the scale that is best for its codes; keep one that is not positive or beyond its type."""
    steps = tensor.codes * exponent_scale(tensor.exponents, tensor.format)[:, None, :]
    steps = steps.reshape(-1, tensor.n)[: tensor.k]
    seen = gram @ steps
    size = np.einsum("kn,kn->n", seen, steps)
    best = np.einsum("kn,kn->n", seen, weight) / np.maximum(size, TINY)
    with np.errstate(over="ignore", under="ignore"):
        scale = (best / tensor.tensor_scale).astype(tensor.column_scale.dtype)
    usable = (size > 0) & (scale >= np.finfo(np.float16).smallest_normal) & np.isfinite(scale)
    return replace(tensor, column_scale=np.where(usable, scale, tensor.column_scale))
