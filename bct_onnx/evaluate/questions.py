"""Question answering: whether the answer that a model finds in a text is the one that people found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.extras import extra
from bct_onnx.package.contents import read_json

from .compare import Outcome, compare
from .folders import bytes_on_disk
from .metrics import mean
from .pipelines import check_folders, run_pipeline
from .read import fields, read_records
from .records import DEFAULTS, Evaluation, Settings

TASK = "question-answering"
EXACT, F1 = mean("exact match"), mean("F1")
_METRICS = "transformers.data.metrics.squad_metrics"


@dataclass(frozen=True)
class Question:
    """A question, the text to find an answer in, and all answers that are right; none where the text has none."""

    question: str
    context: str
    answers: tuple[str, ...]


def read_questions(data: str | Path, samples: int | None = None) -> list[Question]:
    """Return the first questions of a .json file in SQuAD's format (1.1 or 2.0), or of a .jsonl file; raises BctError.

    Records have question, context and answers: texts, or as SQuAD and its data sets have them.
    """
    file = Path(data)
    if file.suffix != ".json":
        records = read_records(file, samples)
        found = list(zip(*fields(file, records, ("question",), ("context",), ("answers", "answer")), strict=True))
    else:
        found = list(_squad(file))[:samples]
    questions = [
        Question(question, context, _answers(file, number, answers))
        for number, (question, context, answers) in enumerate(found, 1)
    ]
    if not questions:
        raise BctError(f"{file}: no questions")
    if not all(isinstance(text, str) for one in questions for text in (one.question, one.context)):
        raise BctError(f"{file}: a question or its context is something else than text")
    return questions


def _squad(file: Path) -> Iterator[tuple[Any, ...]]:
    try:
        for article in read_json(file)["data"]:
            for paragraph in article["paragraphs"]:
                for entry in paragraph["qas"]:
                    yield entry["question"], paragraph["context"], entry["answers"]
    except (KeyError, TypeError) as error:
        raise BctError(f"{file}: not in SQuAD's format, data > paragraphs > qas: {error!r}") from error


def _answers(file: Path, number: int, answers: Any) -> tuple[str, ...]:
    """Return the texts of answers: "a", ["a"], [{"text": "a"}] or {"text": ["a"]}."""
    texts = answers.get("text") if isinstance(answers, dict) else answers
    texts = [texts] if isinstance(texts, str) else texts
    texts = [one.get("text") if isinstance(one, dict) else one for one in texts] if isinstance(texts, list) else None
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise BctError(f"{file}: question {number} has answers that are no texts")
    return tuple(texts)


def _answer(pipeline: Any, questions: Sequence[Question]) -> list[str]:
    """Return what a pipeline answers; "" is an answer where some of the questions have none."""
    none = not all(question.answers for question in questions)
    return [
        pipeline(question=one.question, context=one.context, handle_impossible_answer=none)["answer"]
        for one in questions
    ]


def scores(question: Question, answer: str) -> tuple[float, float]:
    """Return whether an answer is exactly right, and F1 of its words, 0 to 1; the best among right answers counts."""
    metrics = extra(_METRICS, "export")
    right = [text for text in question.answers if metrics.normalize_answer(text)] or [""]
    exact, f1 = (
        max(float(figure(text, answer)) for text in right) for figure in (metrics.compute_exact, metrics.compute_f1)
    )
    return exact, f1


def evaluate_questions(
    data: str | Path,
    models: Sequence[str | Path],
    *,
    samples: int | None = None,
    settings: Settings = DEFAULTS,
) -> Evaluation:
    """Return SQuAD's exact match and F1 of models that find answers in a text.

    Models are folders; the first is the reference. `data` is in SQuAD's format or a .jsonl file (`read_questions`).
    The decision on a question is the answer. Raises BctError for what cannot be read or run.
    """
    paths = check_folders(models)
    extra(_METRICS, "export")
    questions = read_questions(data, samples)
    outcomes = []
    for path in paths:
        answers = run_pipeline(TASK, path, settings.threads, partial(_answer, questions=questions))
        exact, f1 = np.array([scores(one, answer) for one, answer in zip(questions, answers, strict=True)]).T
        by_name = {EXACT.name: exact, F1.name: f1}
        outcomes.append(Outcome(path, bytes_on_disk(path), by_name, np.array(answers, object)))
    return compare("questions", data, outcomes, [EXACT, F1], settings)
