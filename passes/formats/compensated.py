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
# Where samples are few, or only like those to come, what channels have in common counts less: this part of each
# channel's own diagonal is added, whatever sizes others have. Four products of SmolLM2-135M, fitted to 4,096 tokens of
# its own, on real text: 0.3 and 1 leave half of the error of the nearest codes; 1 of the mean diagonal a tenth more.
SHRINKING = 0.5
# Part of the mean diagonal that a channel has at least: one of zeros needs some.
LEAST = 1e-4
# Rows rounded before what they leave is carried to the rest with one product.
STEP = 64
# Fewer samples than this many times k say little of how the channels go together.
SAMPLES_PER_CHANNEL = 2


@dataclass(frozen=True)
class Gram:
    """What is known of an activation x, [samples, k].

    Attributes:
        matrix: x.T @ x / samples, float32 [k, k].
        samples: rows that were seen.
        real: whether they are the user's, and not made for the model.
    """

    matrix: Floats
    samples: int
    real: bool = True

    def damped(self) -> NDArray[np.float64]:
        """Return the matrix with more on its diagonal: float64 [k, k], positive definite."""
        matrix = self.matrix.astype(np.float64)
        diagonal = matrix.diagonal().copy()
        mean = max(float(diagonal.mean()), TINY)
        enough = self.real and self.samples >= SAMPLES_PER_CHANNEL * len(matrix)
        matrix[np.diag_indices(len(matrix))] += DAMPING * mean if enough else SHRINKING * diagonal + LEAST * mean
        return matrix


def compensate(weight: NDArray[np.floating], gram: Gram, fmt: BlockFormat, workers: int = 1) -> BlockTensor:
    """Return codes of a finite float [k, n] weight with a small error of `x @ weight`, for x as in `gram`, [k, k].

    Exponents and column scales are searched first, rows weighed by the size of their channel. Then the rows are rounded
    one after the other, the largest channels first, and the error of each is made up for by those that follow. Last,
    every column scale becomes the best one for the codes. Where that leaves a larger error than the search did (float16
    scales, few columns), the search's codes are returned. Codes stand for themselves, where `fmt` has a trellis, too.
    """
    damped = gram.damped()
    start = encode(weight, fmt.uniform, workers, damped.diagonal())
    matrix = np.asarray(weight, np.float32)
    codes = _round_in_turn(matrix, damped, start)
    tensor = replace(start, codes=codes)
    tensor = tensor if fmt.powers else _rescale(tensor, matrix, gram.matrix)
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
    rows = start.codes.shape[1]
    low, high = start.limits
    zeros = np.zeros_like(start.exponents, np.float32) if start.zeros is None else start.zeros.astype(np.float32)
    order = np.argsort(-damped.diagonal(), kind="stable")
    # Upper triangle of the inverse's Cholesky factors, U.T @ U, without the inverse.
    lower = np.linalg.cholesky(damped[np.ix_(order[::-1], order[::-1])])
    upper = _inverse_of_lower(lower.astype(np.float32))[::-1, ::-1]
    # What an error leaves to a later row, in units of the error itself.
    shares = np.ascontiguousarray((upper / upper.diagonal()[:, None]).T)
    scale = start.block_scale
    left = weight[order]
    padded = np.zeros((start.codes.shape[0] * rows, n), np.int8)
    for begin in range(0, k, STEP):
        end = min(begin + STEP, k)
        errors = np.empty((end - begin, n), np.float32)
        for row in range(begin, end):
            done = row - begin
            block = order[row] // rows
            value, steps, zero = left[row], scale[block], zeros[block]
            if done:
                value -= shares[row, begin:row] @ errors[:done]
            codes = np.clip(np.rint(value / steps + zero), low[block], high[block])
            padded[order[row]] = codes
            np.subtract(value, (codes - zero) * steps, out=errors[done])
        left[end:] -= shares[end:, begin:end] @ errors
    return padded.reshape(start.codes.shape)


def _inverse_of_lower(lower: Floats) -> Floats:
    """Return the inverse of a lower triangular matrix, by halves: a sixth of the work of a general one."""
    k = len(lower)
    if k <= STEP:
        return np.linalg.inv(lower)
    half = k // 2
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = first = _inverse_of_lower(lower[:half, :half])
    inverse[half:, half:] = last = _inverse_of_lower(lower[half:, half:])
    inverse[half:, :half] = -last @ (lower[half:, :half] @ first)
    return inverse


def _rescale(tensor: BlockTensor, weight: Floats, gram: Floats) -> BlockTensor:
    """Give each column the scale that is best for its codes; keep one that is not positive or beyond its type."""
    steps = tensor.numbers * exponent_scale(tensor.exponents, tensor.format)[:, None, :]
    steps = steps.reshape(-1, tensor.n)[: tensor.k]
    seen = gram @ steps
    size = np.einsum("kn,kn->n", seen, steps)
    best = np.einsum("kn,kn->n", seen, weight) / np.maximum(size, TINY)
    with np.errstate(over="ignore", under="ignore"):
        scale = (best / tensor.tensor_scale).astype(tensor.column_scale.dtype)
    usable = (size > 0) & (scale >= np.finfo(np.float16).smallest_normal) & np.isfinite(scale)
    return replace(tensor, column_scale=np.where(usable, scale, tensor.column_scale))
