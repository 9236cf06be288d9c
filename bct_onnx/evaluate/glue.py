"""GLUE and any other classification of sentences or pairs of sentences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.errors import BctError

from .compare import Outcome, compare
from .folders import bytes_on_disk, check_models
from .metrics import ACCURACY, F1, MATTHEWS, PEARSON, SPEARMAN, Array, Metric
from .model import Model, batches
from .read import read_records
from .records import DEFAULTS, Evaluation, Settings
from .tokenizers import read_tokenizer, tokenizer_of

# Names of one field, the likeliest first: the plain ones, then those of the published files.
_FIRST = ("sentence1", "question1", "question", "premise", "sentence", "text", "#1 String")
_SECOND = ("sentence2", "question2", "hypothesis", "sentence", "#2 String")
_LABEL = ("label", "gold_label", "score", "is_duplicate", "Quality")


@dataclass(frozen=True)
class Task:
    """A task: its metrics, the words its labels may be written as, and whether labels are real numbers."""

    metrics: tuple[Metric, ...]
    words: tuple[str, ...] = ()
    regression: bool = False


TASKS: Mapping[str, Task] = {
    "CoLA": Task((MATTHEWS,)),
    "SST-2": Task((ACCURACY,)),
    "MRPC": Task((ACCURACY, F1)),
    "QQP": Task((ACCURACY, F1)),
    "STS-B": Task((PEARSON, SPEARMAN), regression=True),
    "MNLI": Task((ACCURACY,), ("entailment", "neutral", "contradiction")),
    "QNLI": Task((ACCURACY,), ("entailment", "not_entailment")),
    "RTE": Task((ACCURACY,), ("entailment", "not_entailment")),
    "WNLI": Task((ACCURACY,)),
    "classification": Task((ACCURACY,)),
}


def _label(value: Any, task: Task) -> float:
    return task.words.index(value) if value in task.words else float(value)


def read_sentences(
    file: str | Path, task: Task, limit: int | None = None
) -> tuple[list[str] | list[tuple[str, str]], Array]:
    """Return texts (or pairs of texts) and labels [n] of the first `limit` records; raises BctError."""
    records = read_records(file, limit)
    first = next((name for name in _FIRST if name in records[0]), None)
    second = next((name for name in _SECOND if name in records[0] and name != first), None)
    label = next((name for name in _LABEL if name in records[0]), None)
    if first is None or label is None:
        fields = ", ".join(map(str, records[0]))
        raise BctError(f"{file}: fields are {fields}; wanted are sentence1, label and, for pairs, sentence2")
    try:
        labels = np.array([_label(record[label], task) for record in records])
        texts = [record[first] for record in records]
        others = [record[second] for record in records] if second else []
    except (KeyError, ValueError, TypeError) as error:
        raise BctError(f"{file}: a record lacks a field or has no such label: {error}") from error
    if not all(isinstance(text, str) for text in (*texts, *others)):
        raise BctError(f"{file}: a record has something else than text in {first} or {second}")
    if not task.regression:
        if (labels < 0).any() or (labels % 1).any():
            raise BctError(f"{file}: labels are class numbers, 0 and up; -1 marks a set without labels")
        labels = labels.astype(np.int64)
    return (list(zip(texts, others, strict=True)) if second else texts), labels


def encode(tokenizer: Any, texts: Sequence[Any], limit: int) -> list[Any]:
    """Return the encodings of texts, or pairs of texts, of at most `limit` tokens."""
    tokenizer.enable_truncation(limit)
    return list(tokenizer.encode_batch(texts))


def padding_of(tokenizer: Any) -> int:
    """Return the number of the token that pads."""
    numbers = (tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>"))
    return next((number for number in numbers if number is not None), 0)


def _padded(rows: Sequence[Sequence[int]], width: int, filler: int) -> Array:
    """Return the rows as one int64 array [len(rows), width]."""
    lengths = np.array([len(row) for row in rows])
    array = np.full((len(rows), width), filler, np.int64)
    array[np.arange(width) < lengths[:, None]] = np.concatenate([np.asarray(r, np.int64) for r in rows])
    return array


def class_answers(
    model: Model,
    encodings: Sequence[Any],
    padding: int,
    settings: Settings,
    pool: Callable[[Array, Array], Array] = lambda output, _: output,
) -> Array:
    """Return the model's answers [n, classes] in the order of the encodings.

    `pool` makes [batch, classes] of an output and the mask [batch, tokens], where the model does not.
    """
    ids = model.input("main")
    if ids is None:
        names = ", ".join(node.name for node in model.inputs)
        raise BctError(f"{model.path}: no input_ids among its inputs ({names})")
    lengths = np.array([len(encoding.ids) for encoding in encodings])
    fixed = ids.size(1)
    if fixed is not None and lengths.max() > fixed:
        raise BctError(f"{model.path}: takes {fixed} tokens, the longest text has {lengths.max()}: use --limit {fixed}")
    answers: Array | None = None
    maskless = model.input("mask") is None and fixed is None
    for chosen in batches(lengths, settings.batch, equal=maskless):
        picked = [encodings[i] for i in chosen]
        width = fixed or int(lengths[chosen].max())
        values = {
            "main": _padded([e.ids for e in picked], width, padding),
            "mask": _padded([e.attention_mask for e in picked], width, 0),
            "types": _padded([e.type_ids for e in picked], width, 0),
            "positions": np.tile(np.arange(width), (len(picked), 1)),
        }
        output = pool(model.answer(values), values["mask"])
        if output.ndim != 2:
            raise BctError(f"{model.path}: output {model.output} is not [batch, classes]: {list(output.shape)}")
        answers = np.empty((len(encodings), output.shape[1])) if answers is None else answers
        answers[chosen] = output
    assert answers is not None
    return answers


def _outcome(path: Path, logits: Array, task: Task, labels: Array) -> Outcome:
    """Return class numbers, or for regression the value, whose decision is the nearest whole number."""
    classes = logits.shape[1]
    if task.regression:
        if classes != 1:
            raise BctError(f"{path}: gives {classes} values a sample where the task wants one")
        return Outcome(path, bytes_on_disk(path), logits[:, 0], np.rint(logits[:, 0]))
    if classes <= labels.max():
        raise BctError(f"{path}: gives {classes} values a sample, but a label is {labels.max()}")
    answers = logits.argmax(axis=1)
    return Outcome(path, bytes_on_disk(path), answers, answers)


def evaluate_glue(
    task: str,
    data: str | Path,
    models: Sequence[str | Path],
    *,
    tokenizer: str | Path | None = None,
    limit: int = 128,
    samples: int | None = None,
    settings: Settings = DEFAULTS,
) -> Evaluation:
    """Return the official metrics of one of TASKS for models, files or folders, on a .jsonl or .tsv file.

    The first model is the reference. The tokenizer is that beside a model, else the reference's. `limit` is the
    longest text in tokens, special ones included; `samples` takes the first ones only. Fields are sentence1, label and,
    for pairs, sentence2. Raises BctError for what cannot be read or run.
    """
    if task not in TASKS:
        raise BctError(f"no task {task}: choose from {', '.join(TASKS)}")
    paths = check_models(models)
    texts, labels = read_sentences(data, TASKS[task], samples)
    outcomes = []
    for path in paths:
        reader = read_tokenizer(tokenizer_of(path, paths[0], tokenizer))
        encodings = encode(reader, texts, limit)
        logits = class_answers(Model(path, settings.threads), encodings, padding_of(reader), settings)
        outcomes.append(_outcome(path, logits, TASKS[task], labels))
    return compare(task, data, outcomes, TASKS[task].metrics, settings, labels=labels)
