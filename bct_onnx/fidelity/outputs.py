"""How far an output of the compressed model is from the input model's, in one figure that means the same everywhere.

The error of an output, over the rows of one feed:

    values, classes   sqrt(mean |difference|^2 / mean |distance of the expected row from the mean expected row|^2):
                      0 for the same answers, 1 for answers that say as little as their mean. What all rows have in
                      common (an offset, a direction) is no signal. 0.1: a classifier changes about 3 decisions in
                      100, mostly near ties.
                      Of many classes it is the distance from each other that counts, row by row.
    next token        sqrt(n / 2), with n the nats by which a token of real text becomes less likely: 0.1 is 2 % of
                      perplexity. Two thirds of the divergence on text of the model's own tell n.
    cache             as values.

The worst feed counts; feeds of a few rows are taken together, since one row tells little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bct_onnx.arrays import Array, Feed
from bct_onnx.fidelity.kinds import Kind, output_kind
from bct_onnx.fidelity.rows import Rows, rows_of, special_values

# Rows from which a feed is judged alone, and those that tell what an output's spread over inputs is.
FEWEST_ROWS, FEWEST_FOR_SPREAD = 8, 4
# Columns that may be quantities of different units: each is measured by its own spread.
MOST_QUANTITIES = 8
# Classes from which those of one row tell enough.
MANY_CLASSES = 16
# A column that spreads less than this part of the widest one is measured by that part; rows that differ by less than
# this part of their size do not differ: it is the rounding of float32.
LEAST_SPREAD, ROUNDING = 1e-3, 1e-5
# An output below this (root mean square) is zero, and an answer to it as near as this is right.
ZERO, NEAR_ZERO = 1e-6, 1e-3
# What real text shows of the divergence on text of a model's own: 0.35 to 1 on five language models.
REAL_SHARE = 2 / 3


@dataclass(frozen=True)
class OutputError:
    """The error of one output; None where a figure has no meaning.

    Attributes:
        kind: what the output is, one of `Kind`'s words.
        error: the figure of the worst feed, as this module defines it.
        worst: which feed that is.
        mean: the figure over all feeds.
        by_feed: the figure of every feed; feeds of a few rows, which are judged as one, share theirs; None for one
            without rows.
        max_abs: largest difference.
        relative: norm of the difference over the norm of the expected, over all feeds.
        decisions: share of rows whose largest value is the same: the class, the next token.
        divergence: nats of the next token's distribution, over all feeds.
        perplexity: by how much of itself perplexity rises on real text, about, as that tells.
        same: share of equal values, for integers, booleans and strings, which have none of the others.
        spread: False where too few rows, or equal ones, leave the spread over inputs unknown: the error is relative
            to the rows themselves.
    """

    kind: str
    error: float | None = None
    worst: int | None = None
    mean: float | None = None
    by_feed: tuple[float | None, ...] | None = None
    max_abs: float | None = None
    relative: float | None = None
    decisions: float | None = None
    divergence: float | None = None
    perplexity: float | None = None
    same: float | None = None
    spread: bool = True


def find_mismatch(reference: Array, output: Array) -> str | None:
    """Return what differs in kind: type, shape, places of NaN and infinity; None when nothing does."""
    if reference.dtype != output.dtype:
        return f"has type {output.dtype}, the input model's has {reference.dtype}"
    if reference.shape != output.shape:
        return f"has shape {list(output.shape)}, the input model's has {list(reference.shape)}"
    if reference.dtype.kind != "f":
        return None
    wrong = special_values(reference) != special_values(output)
    if wrong.any():
        return f"has NaN or infinity in other places than the input model's ({int(wrong.sum())} of {wrong.size})"
    return None


def output_error(name: str, expected: Sequence[Array], answered: Sequence[Array], feeds: Sequence[Feed]) -> OutputError:
    """Return the error of an output over feeds; arrays of both models have the same types and shapes."""
    kind = output_kind(name, expected)
    if kind is Kind.EXACT:
        equal = sum(int((one == other).sum()) for one, other in zip(expected, answered, strict=True))
        count = sum(array.size for array in expected)
        return OutputError(kind.value, same=equal / count if count else None)
    rows = rows_of(kind, expected, answered, feeds)
    if not rows.expected.size:
        return OutputError(kind.value)
    squares, spread = (_divergences(rows) * REAL_SHARE / 2, True) if kind is Kind.TOKENS else _squares(kind, rows)
    nats = 2 * float(squares.mean())
    by_feed = _by_feed(squares, rows.counts)
    worst, error = _worst(squares, rows.counts, by_feed)
    return OutputError(
        kind=kind.value,
        error=error,
        worst=worst,
        mean=math.sqrt(float(squares.mean())),
        by_feed=by_feed,
        max_abs=float(np.abs(rows.answered - rows.expected).max()),
        relative=_relative(rows),
        decisions=_decisions(rows) if kind in (Kind.TOKENS, Kind.CLASSES) else None,
        divergence=nats / REAL_SHARE if kind is Kind.TOKENS else None,
        perplexity=math.expm1(nats) if kind is Kind.TOKENS else None,
        spread=spread,
    )


def class_errors(expected: Array, answered: Array) -> Array:
    """Return the squared error of every sample, [n], of two models' logits [n, classes] on the same samples.

    The root of their mean is the error over a feed of all of them: `OutputError.mean`.
    """
    return _squares(Kind.CLASSES, rows_of(Kind.CLASSES, [expected], [answered], [{}]))[0]


def _squares(kind: Kind, rows: Rows) -> tuple[Array, bool]:
    """Return the squared error of every row, [rows], and whether it is relative to the spread over inputs."""
    expected, difference = rows.expected, rows.answered - rows.expected
    if kind is Kind.CLASSES and expected.shape[1] >= MANY_CLASSES:
        expected, difference = _centred(expected), _centred(difference)
        return _ratio(np.square(difference).sum(axis=1), np.square(expected).sum(axis=1).mean()), True
    around = np.square(expected - expected.mean(axis=0)).mean(axis=0)
    size = np.square(expected).mean(axis=0)
    known = bool(len(expected) >= FEWEST_FOR_SPREAD and around.sum() > ROUNDING**2 * size.sum())
    signal = around if known else size
    if math.sqrt(size.sum()) <= ZERO and math.sqrt(np.square(difference).sum(axis=1).max()) <= NEAR_ZERO:
        return np.zeros(len(expected)), known
    if kind is Kind.VALUES and known and len(signal) <= MOST_QUANTITIES:
        each = np.maximum(np.maximum(signal, LEAST_SPREAD**2 * signal.max()), ROUNDING**2 * size)
        return np.asarray((np.square(difference) / each).mean(axis=1)), known
    return _ratio(np.square(difference).sum(axis=1), signal.sum()), known


def _ratio(squares: Array, signal: float) -> Array:
    return np.asarray(squares / max(float(signal), ZERO**2))


def _centred(rows: Array) -> Array:
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))


def _divergences(rows: Rows) -> Array:
    """Return the Kullback-Leibler divergence of softmax(answered) from softmax(expected), by rows, in nats."""
    p, q = _log_softmax(rows.expected), _log_softmax(rows.answered)
    return np.asarray(np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0))


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _by_feed(squares: Array, counts: Sequence[int]) -> tuple[float | None, ...]:
    """Return the error of every feed with rows; feeds of few rows are judged as one."""
    feed_of = np.repeat(np.arange(len(counts)), counts)
    few = [number for number, count in enumerate(counts) if 0 < count < FEWEST_ROWS]
    groups = [few if number in few else [number] for number in range(len(counts))]
    parts = [squares[np.isin(feed_of, group)] for group in groups]
    return tuple(math.sqrt(float(part.mean())) if len(part) else None for part in parts)


def _worst(squares: Array, counts: Sequence[int], by_feed: Sequence[float | None]) -> tuple[int, float]:
    """Return the feed with the largest error, and that; of feeds that share it, the one that is furthest off."""
    error = max(each for each in by_feed if each is not None)
    means = {
        number: float(part.mean())
        for number, part in enumerate(np.split(squares, np.cumsum(counts)[:-1]))
        if by_feed[number] == error
    }
    return max(means, key=lambda number: means[number]), error


def _relative(rows: Rows) -> float:
    difference, reference = (np.linalg.norm(array) for array in (rows.answered - rows.expected, rows.expected))
    return float(difference / max(float(reference), ZERO)) if difference else 0.0


def _decisions(rows: Rows) -> float | None:
    if rows.expected.shape[1] < 2:
        return None
    return float((rows.expected.argmax(axis=1) == rows.answered.argmax(axis=1)).mean())
