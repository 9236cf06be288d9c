"""Figures of a whole corpus: made of statistics of its samples, they are those of the libraries, resampled too."""

import numpy as np
import pytest

from bct_onnx.evaluate import speech, texts, tokens
from bct_onnx.evaluate.compare import Outcome, intervals
from bct_onnx.evaluate.metrics import Metric, mean, ratio

WORDS = np.array(["rain", "sun", "wind", "snow", "fog", "hail"])
KINDS = np.array(["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"])


def sentences(seed: int, count: int = 30) -> tuple[list[str], list[str]]:
    """Return texts, and what a model made of them: words changed, left out and put in; one empty."""
    random = np.random.default_rng(seed)
    truth, said = [], []
    for length in random.integers(1, 12, count):
        words = random.choice(WORDS, length)
        kept = words[random.random(length) < 0.8]
        changed = np.where(random.random(len(kept)) < 0.2, random.choice(WORDS, len(kept)), kept)
        truth.append(" ".join(words))
        said.append(" ".join([*changed, *random.choice(WORDS, random.integers(2))]))
    return truth, [*said[:-1], ""]


def tags(seed: int, count: int = 30) -> tuple[list[list[str]], list[list[str]]]:
    random = np.random.default_rng(seed)
    truth = [random.choice(KINDS, length).tolist() for length in random.integers(1, 12, count)]
    found = [[random.choice(KINDS) if random.random() < 0.3 else tag for tag in one] for one in truth]
    return truth, [list(map(str, one)) for one in found]


def check(metric: Metric, statistics: np.ndarray, official, seed: int) -> None:
    """Compare the figure of all samples, and of resamples of them, with what a library makes of the texts."""
    count = len(statistics)
    drawn = np.random.default_rng(seed).integers(count, size=(5, count))
    labels = np.zeros(count)
    assert metric.score(labels, statistics) == pytest.approx(official(range(count)), rel=1e-9, abs=1e-9)
    found = metric.resampled(labels[drawn], statistics[drawn])
    assert found.shape == (5,)
    np.testing.assert_allclose(found, [official(row) for row in drawn], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_word_error_rate_is_that_of_jiwer(seed):
    jiwer = pytest.importorskip("jiwer")
    truth, said = sentences(seed)

    def official(rows):
        return 100 * jiwer.wer([truth[row] for row in rows], [said[row] for row in rows])

    assert 5 < official(range(30)) < 100
    check(speech.WORD_ERROR_RATE, speech.word_errors(truth, said), official, seed)


def test_words_for_silence_are_errors():
    pytest.importorskip("jiwer")
    counted = speech.word_errors(["", "a b"], ["x y z", "a b"])
    assert counted.tolist() == [[3, 0], [0, 2]]
    assert speech.WORD_ERROR_RATE.score(np.zeros(2), counted) == 150


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", tokens.METRICS, ids=lambda metric: metric.name)
def test_entities_are_counted_as_by_seqeval(metric, seed):
    official = getattr(pytest.importorskip("seqeval.metrics"), f"{metric.name.lower()}_score")
    truth, found = tags(seed)

    def figure(rows):
        return 100 * official([truth[row] for row in rows], [found[row] for row in rows])

    assert 20 < figure(range(30)) < 90
    check(metric, tokens.count(truth, found), figure, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "language"), [("BLEU", None), ("BLEU", "zh"), ("chrF", None)])
def test_translations_are_scored_as_by_sacrebleu(name, language, seed):
    sacrebleu = pytest.importorskip("sacrebleu")
    scorer = sacrebleu.BLEU(trg_lang=language or "") if name == "BLEU" else sacrebleu.CHRF()
    truth, said = sentences(seed)

    def official(rows):
        return scorer.corpus_score([said[row] for row in rows], [[truth[row] for row in rows]]).score

    measure = next(one for one in texts.translation(language) if one.metric.name == name)
    assert 5 < official(range(30)) < 95
    assert measure.note == f"{name}: {scorer.get_signature()}"
    check(measure.metric, measure.statistics(truth, said), official, seed)


def test_summaries_are_scored_as_by_rouge_score():
    scoring = pytest.importorskip("rouge_score.rouge_scorer")
    truth, said = sentences(0)
    for measure, name in zip(texts.summarization(None), ("rouge1", "rouge2", "rougeL"), strict=True):
        scorer = scoring.RougeScorer([name], use_stemmer=True)
        each = np.array([scorer.score(one, other)[name].fmeasure for one, other in zip(truth, said, strict=True)])
        assert 10 < 100 * each.mean() < 95
        check(measure.metric, measure.statistics(truth, said), lambda rows, each=each: 100 * each[list(rows)].mean(), 0)


def test_a_ratio_of_nothing_is_nothing():
    metric = ratio("x", lambda sums: sums[:, 0], lambda sums: sums[:, 1])
    assert metric.score(np.zeros(2), np.zeros((2, 2))) == 0


def test_intervals_of_statistics_are_those_of_their_ratio_in_any_slabs(monkeypatch):
    """Of 400 sentences of 10 words, the other model has one more wrong in every fourth: 2.5 points, give or take."""
    metric = ratio("x", lambda sums: sums[:, 0], lambda sums: sums[:, 1])
    first = np.tile([1.0, 10.0], (400, 1))
    other = first + np.stack([np.arange(400) % 4 == 0, np.zeros(400)], axis=1)
    same, (low, high) = intervals(metric, np.zeros(400), [first, other], 4000, 0)
    assert same == (0, 0)
    width = 100 * 1.96 * np.sqrt(0.25 * 0.75 / 400) / 10
    assert low == pytest.approx(2.5 - width, abs=0.03)
    assert high == pytest.approx(2.5 + width, abs=0.03)
    monkeypatch.setattr("bct_onnx.evaluate.compare._SLAB", 400 * 64)
    assert intervals(metric, np.zeros(400), [first, other], 4000, 0) == [same, (low, high)]


def test_metrics_may_have_answers_of_their_own(tmp_path):
    one = Outcome(tmp_path, 1, {"a": np.array([1.0]), "b": np.array([0.5])}, np.zeros(1))
    assert one.answers_for(mean("b")).tolist() == [0.5]
    assert mean("b").score(np.zeros(1), one.answers_for(mean("b"))) == 50
    assert Outcome(tmp_path, 1, np.ones(3), np.zeros(1)).answers_for(mean("b")).tolist() == [1, 1, 1]
