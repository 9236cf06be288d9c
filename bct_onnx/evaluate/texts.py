"""Translation and summarization: how near the texts that a model writes are to those of people."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.extras import extra

from .compare import Outcome, compare
from .folders import bytes_on_disk
from .metrics import Array, Metric, mean, of_sums
from .pipelines import check_folders, run_pipeline
from .read import read_records, text_fields
from .records import DEFAULTS, Evaluation, Settings

TASK = "text2text-generation"
MOST_TOKENS = 128
_SOURCE = ("source", "text", "document", "article", "dialogue", "src")
_TARGET = ("target", "summary", "translation", "reference", "highlights", "tgt")


@dataclass(frozen=True)
class TextMetric:
    """A metric, and the statistics [texts, ...] of targets and texts that it is computed from."""

    metric: Metric
    statistics: Callable[[Sequence[str], Sequence[str]], Array]
    note: str


def _corpus(name: str, scorer: Any) -> TextMetric:
    """Return a figure of sacrebleu, made of sums of its statistics.

    The two methods are what every metric of sacrebleu implements, and what its own paired tests are made with.
    """

    def statistics(targets: Sequence[str], texts: Sequence[str]) -> Array:
        return np.array(scorer._extract_corpus_statistics(list(texts), [list(targets)]), float)

    def figure(sums: Array) -> Array:
        return np.array([scorer._compute_score_from_stats(row.tolist()).score / 100 for row in sums])

    scorer._cache_references([[""]])  # one reference a text, which the signature says
    return TextMetric(of_sums(name, figure), statistics, f"{name}: {scorer.get_signature()}")


def translation(language: str | None) -> list[TextMetric]:
    """Return BLEU, its words cut as suits the language of the targets, and chrF."""
    metrics = extra("sacrebleu.metrics")
    return [_corpus("BLEU", metrics.BLEU(trg_lang=language or "")), _corpus("chrF", metrics.CHRF())]


def summarization(_: str | None) -> list[TextMetric]:
    """Return F1 of ROUGE-1, ROUGE-2 and ROUGE-L, words stemmed."""
    make = extra("rouge_score.rouge_scorer").RougeScorer

    def statistics(targets: Sequence[str], texts: Sequence[str], name: str) -> Array:
        scorer = make([name], use_stemmer=True)
        return np.array(
            [scorer.score(target, text)[name].fmeasure for target, text in zip(targets, texts, strict=True)]
        )

    kinds = {"ROUGE-1": "rouge1", "ROUGE-2": "rouge2", "ROUGE-L": "rougeL"}
    return [
        TextMetric(mean(name), partial(statistics, name=kind), f"{name}: rouge_score's F1, words stemmed")
        for name, kind in kinds.items()
    ]


TASKS: Mapping[str, Callable[[str | None], list[TextMetric]]] = {
    "translation": translation,
    "summarization": summarization,
}


def _write(pipeline: Any, sources: Sequence[str], tokens: int) -> list[str]:
    call = {"max_new_tokens": tokens, "do_sample": False, "truncation": True}
    return [pipeline(source, **call)[0]["generated_text"] for source in sources]


def evaluate_texts(
    task: str,
    data: str | Path,
    models: Sequence[str | Path],
    *,
    prefix: str = "",
    language: str | None = None,
    tokens: int = MOST_TOKENS,
    samples: int | None = None,
    settings: Settings = DEFAULTS,
) -> Evaluation:
    """Return the metrics of one of TASKS of encoder-decoders on a .jsonl or .tsv file of source and target.

    Models are folders; the first is the reference. `prefix` stands before every source ("summarize: " for T5),
    `language` is that of the targets (zh, ja, ko: BLEU cuts words otherwise), `tokens` is the most that are written.
    Beams are those of the folder's generation configuration; nothing is drawn by chance. The decision on a source is
    the text. Raises BctError for what cannot be read or run.
    """
    if task not in TASKS:
        raise BctError(f"no task {task}: choose from {', '.join(TASKS)}")
    metrics = TASKS[task](language)
    paths = check_folders(models)
    records = read_records(data, samples)
    sources, targets = text_fields(data, records, _SOURCE, _TARGET)
    sources = [prefix + source for source in sources]
    outcomes = []
    for path in paths:
        texts = run_pipeline(TASK, path, settings.threads, partial(_write, sources=sources, tokens=tokens))
        answers = {one.metric.name: one.statistics(targets, texts) for one in metrics}
        outcomes.append(Outcome(path, bytes_on_disk(path), answers, np.array(texts, object)))
    notes = [one.note for one in metrics]
    return compare(task, data, outcomes, [one.metric for one in metrics], settings, notes=notes)
