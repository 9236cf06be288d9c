"""Metrics: the official figure from scikit-learn or scipy, and the same in numpy for many resamples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bct_onnx.extras import extra

Array = NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """A named figure of merit.

    `score(labels [n], answers [n])` is the official figure, `resampled(labels [r, n], answers [r, n])` the
    same for each of r resamples, shape [r]. Both are in the metric's `unit`. Answers may be k numbers a sample, [n, k].
    """

    name: str
    unit: str
    score: Callable[[Array, Array], float]
    resampled: Callable[[Array, Array], Array]


def _divide(numerator: Array, denominator: Array) -> Array:
    """Return numerator / denominator, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)


def _confusion(labels: Array, answers: Array) -> tuple[Array, Array, Array, Array]:
    """Return true positives, false positives, false negatives, true negatives [r]; positive is 1."""
    true, positive = labels == 1, answers == 1
    pairs = ((true, positive), (~true, positive), (true, ~positive), (~true, ~positive))
    tp, fp, fn, tn = (np.count_nonzero(a & b, axis=-1).astype(float) for a, b in pairs)
    return tp, fp, fn, tn


def _accuracies(labels: Array, answers: Array) -> Array:
    return np.asarray(100 * np.mean(labels == answers, axis=-1))


def _f1s(labels: Array, answers: Array) -> Array:
    tp, fp, fn, _ = _confusion(labels, answers)
    return 100 * _divide(2 * tp, 2 * tp + fp + fn)


def _matthews(labels: Array, answers: Array) -> Array:
    tp, fp, fn, tn = _confusion(labels, answers)
    return 100 * _divide(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


def _pearsons(labels: Array, answers: Array) -> Array:
    x, y = (a - a.mean(axis=-1, keepdims=True) for a in (labels, answers))
    return 100 * _divide((x * y).sum(axis=-1), np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1)))


def _spearmans(labels: Array, answers: Array) -> Array:
    rankdata = extra("scipy.stats").rankdata
    return _pearsons(rankdata(labels, axis=-1), rankdata(answers, axis=-1))


def _accuracy(labels: Array, answers: Array) -> float:
    return 100 * float(extra("sklearn.metrics").accuracy_score(labels, answers))


def _f1(labels: Array, answers: Array) -> float:
    return 100 * float(extra("sklearn.metrics").f1_score(labels, answers, zero_division=0))


def _matthews_score(labels: Array, answers: Array) -> float:
    return 100 * float(extra("sklearn.metrics").matthews_corrcoef(labels, answers))


def _correlation(function: str) -> Callable[[Array, Array], float]:
    def score(labels: Array, answers: Array) -> float:
        if np.ptp(labels) == 0 or np.ptp(answers) == 0:
            return 0.0  # undefined for a constant: it follows nothing
        return 100 * float(getattr(extra("scipy.stats"), function)(labels, answers).statistic)

    return score


def _single(resampled: Callable[[Array, Array], Array]) -> Callable[[Array, Array], float]:
    """Return the official figure of a metric that is nothing but a mean."""
    return lambda labels, answers: float(resampled(labels[None], answers[None])[0])


def _nats(counts: Array, sums: Array) -> Array:
    return np.asarray(sums.sum(axis=-1) / counts.sum(axis=-1))


def _perplexities(counts: Array, sums: Array) -> Array:
    return np.asarray(np.exp(_nats(counts, sums)))


def _root_means(_: Array, squares: Array) -> Array:
    return np.asarray(np.sqrt(squares.mean(axis=-1)))


def mean(name: str) -> Metric:
    """Return the mean of what answers have for each sample, 0 to 1, in percent."""

    def means(_: Array, answers: Array) -> Array:
        return np.asarray(100 * answers.mean(axis=-1))

    return Metric(name, "%", _single(means), means)


def of_sums(name: str, figure: Callable[[Array], Array]) -> Metric:
    """Return a figure of a whole corpus in percent: `figure` makes it, [r], of sums [r, k] of statistics of samples."""

    def figures(_: Array, statistics: Array) -> Array:
        return np.asarray(100 * figure(statistics.sum(axis=1)))

    return Metric(name, "%", _single(figures), figures)


def ratio(name: str, above: Callable[[Array], Array], below: Callable[[Array], Array]) -> Metric:
    """Return the figure above(sums) / below(sums), 0 where that is 0 / 0, of sums [r, k]; in percent."""
    return of_sums(name, lambda sums: _divide(above(sums), below(sums)))


def top(k: int) -> Metric:
    """Return the share of samples whose label is among the k best; answers are the label's rank, best 0."""

    def shares(_: Array, ranks: Array) -> Array:
        return np.asarray(100 * np.mean(ranks < k, axis=-1))

    return Metric(f"top-{k}", "%", _single(shares), shares)


ACCURACY = Metric("accuracy", "%", _accuracy, _accuracies)
F1 = Metric("F1", "%", _f1, _f1s)
MATTHEWS = Metric("Matthews", "%", _matthews_score, _matthews)
PEARSON = Metric("Pearson", "%", _correlation("pearsonr"), _pearsons)
SPEARMAN = Metric("Spearman", "%", _correlation("spearmanr"), _spearmans)
# Of runs of tokens: labels are the numbers of tokens, answers the sums of their negative log-likelihoods.
NATS = Metric("nats per token", "nats", _single(_nats), _nats)
PERPLEXITY = Metric("perplexity", "", _single(_perplexities), _perplexities)
# Answers are squares of distances.
DISTANCE = Metric("distance", "", _single(_root_means), _root_means)
# Answers are squares of errors that are relative to the spread of the reference's logits.
ERROR = Metric("error", "", _single(_root_means), _root_means)
