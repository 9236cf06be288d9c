"""From each model's answers to scores, differences and their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .metrics import Array, Metric
from .records import Evaluation, ModelResult, Score, Settings

# Elements of one slab of resamples: 32 MB an array of float64, whatever the number of samples.
_SLAB = 1 << 22


@dataclass(frozen=True)
class Outcome:
    """What one model said: answers for the metrics, decisions [m] to count the same ones.

    Answers are [n], or [n, k] where a metric wants k statistics of a sample; by name where metrics want different ones.
    """

    path: Path
    bytes: int
    answers: Array | Mapping[str, Array]
    decisions: Array

    def answers_for(self, metric: Metric) -> Array:
        """Return the answers that a metric is computed from."""
        return self.answers[metric.name] if isinstance(self.answers, Mapping) else self.answers


def intervals(
    metric: Metric, labels: Array, answers: Sequence[Array], resamples: int, seed: int
) -> list[tuple[float, float]]:
    """Return for each answers [n] or [n, k] the 95 % interval of its metric minus that of answers[0].

    Paired percentile bootstrap: a resample draws n samples with replacement, the same ones for every model.
    """
    n = len(labels)
    random = np.random.default_rng(seed)
    differences = np.empty((len(answers), resamples))
    rows = max(1, _SLAB // max(array.size for array in (labels, *answers)))
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = random.integers(n, size=(stop - start, n))
        for model, answer in enumerate(answers):
            differences[model, start:stop] = metric.resampled(labels[drawn], answer[drawn])
    low, high = np.percentile(differences - differences[0], (2.5, 97.5), axis=1)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _scores(metric: Metric, labels: Array, outcomes: Sequence[Outcome], settings: Settings) -> list[Score]:
    answers = [outcome.answers_for(metric) for outcome in outcomes]
    values = [metric.score(labels, answer) for answer in answers]
    bounds = intervals(metric, labels, answers, settings.resamples, settings.seed)
    return [
        Score(metric.name, metric.unit, value, value - values[0], low, high)
        for value, (low, high) in zip(values, bounds, strict=True)
    ]


def compare(
    task: str,
    data: str | Path,
    outcomes: Sequence[Outcome],
    metrics: Sequence[Metric],
    settings: Settings,
    *,
    labels: Array | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Return the evaluation of outcomes, the first of which is the reference.

    Labels are [n]; statistics of samples, which are all that some metrics want, need none.
    """
    if labels is None:
        labels = np.zeros(len(outcomes[0].answers_for(metrics[0])))
    columns = [_scores(metric, labels, outcomes, settings) for metric in metrics]
    reference = outcomes[0]
    models = tuple(
        ModelResult(
            path=str(outcome.path),
            bytes=outcome.bytes,
            ratio=reference.bytes / outcome.bytes,
            same_decisions=float(np.mean(outcome.decisions == reference.decisions)),
            scores=scores,
        )
        for outcome, scores in zip(outcomes, zip(*columns, strict=True), strict=True)
    )
    return Evaluation(task, str(data), len(reference.decisions), settings, models, tuple(notes))
