"""Metrics over many resamples are the official ones, and intervals cover what they should."""

import numpy as np
import pytest

from bct_onnx.evaluate.compare import intervals
from bct_onnx.evaluate.metrics import ACCURACY, F1, MATTHEWS, NATS, PEARSON, PERPLEXITY, SPEARMAN, Metric, top


@pytest.mark.parametrize("metric", [ACCURACY, F1, MATTHEWS, PEARSON, SPEARMAN], ids=lambda m: m.name)
@pytest.mark.parametrize("seed", range(4))
def test_resampled_is_the_official_figure(metric: Metric, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=(5, 40))  # many equals, which Spearman's ranks have to share
    answers = np.where(random.random((5, 40)) < 0.3, 1 - labels, labels)
    official = [metric.score(label, answer) for label, answer in zip(labels, answers, strict=True)]
    np.testing.assert_allclose(metric.resampled(labels, answers), official, rtol=1e-12, atol=1e-12)
    assert 0 < official[0] < 100


@pytest.mark.parametrize("metric", [F1, MATTHEWS, PEARSON, SPEARMAN], ids=lambda m: m.name)
def test_a_constant_answer_scores_nothing(metric: Metric) -> None:
    labels, answers = np.array([0, 1, 0, 1]), np.zeros(4, int)
    assert metric.score(labels, answers) == 0
    assert metric.resampled(labels[None], answers[None]).tolist() == [0]


def test_top_counts_ranks_below() -> None:
    ranks = np.array([0, 1, 4, 5, 900])
    assert top(1).score(ranks, ranks) == pytest.approx(20)
    assert top(5).score(ranks, ranks) == pytest.approx(60)


def test_nats_weigh_runs_by_their_tokens() -> None:
    counts, sums = np.array([64, 1]), np.array([64.0, 3.0])
    assert NATS.score(counts, sums) == pytest.approx(67 / 65)
    assert PERPLEXITY.score(counts, sums) == pytest.approx(np.exp(67 / 65))


def test_interval_of_paired_answers_is_that_of_the_differing_samples() -> None:
    # Of 1,000 samples the reference has 800 right; the other model loses 30 of them and wins 10 new ones.
    labels = np.ones(1000, int)
    reference, other = np.zeros((2, 1000), int)
    reference[:800] = 1
    other[30:810] = 1
    same, (low, high) = intervals(ACCURACY, labels, [reference, other], 4000, 0)
    assert same == (0, 0)
    # The difference of a sample is -1, 0 or 1: variance 0.04 - 0.02 ** 2, and 1.96 deviations of its mean.
    width = 100 * 1.96 * np.sqrt((0.04 - 0.02**2) / 1000)
    assert low == pytest.approx(-2 - width, abs=0.15)
    assert high == pytest.approx(-2 + width, abs=0.15)


def test_intervals_repeat_with_the_seed_and_in_any_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    labels, first, second = random.integers(2, size=(3, 50))
    answers = [first, second]
    whole = intervals(F1, labels, answers, 200, 7)
    assert whole == intervals(F1, labels, answers, 200, 7)
    assert whole != intervals(F1, labels, answers, 200, 8)
    monkeypatch.setattr("bct_onnx.evaluate.compare._SLAB", 50 * 64)
    assert whole == intervals(F1, labels, answers, 200, 7)
