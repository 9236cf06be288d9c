"""An output seen as rows: one of the model's answers each, over all feeds with the same columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bct_onnx.arrays import Array, Feed
from bct_onnx.fidelity.kinds import CACHE_RANK, VECTOR_RANK, Kind

# Values written for "masked", like the least float32: not numbers.
HUGE, HUGE_FLOAT16 = 1e30, 65000.0
PICTURE_RANK = 4
# Tokens of a text that has hardly begun: what follows them is anybody's guess. They count in shorter texts only.
BEGINNING = 8
# Answers of a batch from which places of a picture are told apart.
FEWEST_PICTURES = 4


@dataclass(frozen=True)
class Rows:
    """One output over all feeds, expected and answered, and the number of rows of each feed.

    Attributes:
        expected: float64 [rows, columns].
        answered: the same of the compressed model.
        counts: rows by feed.
    """

    expected: Array
    answered: Array
    counts: tuple[int, ...]


def rows_of(kind: Kind, expected: Sequence[Array], answered: Sequence[Array], feeds: Sequence[Feed]) -> Rows:
    """Return an output of all feeds as rows; tokens that a mask leaves out, and values that are no numbers, count not.

    A row is what stands on the last axis; of a picture, [batch, channels, height, width], all of it where the feeds
    have one size. Where rows of different feeds have different lengths, every value is a row of its own.
    """
    shapes = [_as_rows(kind, array, expected) for array in expected]
    if len({width for _, width in shapes}) > 1:
        shapes = [(array.size, 1) for array in expected]
    pairs = [
        _unmasked(
            one.reshape(shape), other.reshape(shape), _mask(one, shape[0], feed) & _has_begun(kind, one, shape[0])
        )
        for one, other, shape, feed in zip(expected, answered, shapes, feeds, strict=True)
    ]
    one, other = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return Rows(one, other, tuple(len(part) for part, _ in pairs))


def special_values(values: Array) -> Array:
    """Return 0 for ordinary numbers, 2 for NaN, 1 and -1 for infinity and numbers as large."""
    limit = HUGE_FLOAT16 if values.dtype == np.float16 else HUGE
    return np.where(np.isnan(values), 2, (values > limit).astype(np.int8) - (values < -limit)).astype(np.int8)


def _as_rows(kind: Kind, array: Array, all_feeds: Sequence[Array]) -> tuple[int, int]:
    if array.ndim < VECTOR_RANK:
        return array.size, 1
    batch = sum(len(each) for each in all_feeds)
    whole = array.ndim == PICTURE_RANK and kind is not Kind.CACHE and batch >= FEWEST_PICTURES
    if whole and len({each.shape[1:] for each in all_feeds}) == 1:
        return len(array), int(np.prod(array.shape[1:]))
    return int(np.prod(array.shape[:-1])), array.shape[-1]


def _mask(array: Array, rows: int, feed: Feed) -> Array:
    """Return which rows are tokens that count: [rows]."""
    for name, value in feed.items():
        if "mask" not in name or isinstance(value, list) or value.ndim != VECTOR_RANK or array.ndim < CACHE_RANK:
            continue
        if value.dtype.kind in "iub" and value.shape[0] == array.shape[0] and value.shape[1] >= array.shape[1]:
            # Behind a cache the mask speaks of the earlier tokens, too.
            chosen = value[:, value.shape[1] - array.shape[1] :].astype(bool).reshape(-1)
            if len(chosen) == rows and chosen.any():
                return chosen
    return np.ones(rows, bool)


def _has_begun(kind: Kind, array: Array, rows: int) -> Array:
    """Return which rows are behind the beginning of a text: [rows]."""
    chosen = np.ones(rows, bool)
    if kind is Kind.TOKENS and array.shape[1] >= 2 * BEGINNING:
        chosen.reshape(array.shape[:2])[:, :BEGINNING] = False
    return chosen


def _unmasked(expected: Array, answered: Array, chosen: Array) -> tuple[Array, Array]:
    finite = special_values(expected) == 0
    one, other = (np.where(finite, array, 0).astype(np.float64) for array in (expected, answered))
    return one[chosen], other[chosen]
