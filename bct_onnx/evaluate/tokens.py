"""Classification of tokens: the entities that are found in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.extras import extra

from .compare import Outcome, compare
from .folders import bytes_on_disk
from .metrics import Array, ratio
from .pipelines import check_folders, run_pipeline
from .read import fields, read_records
from .records import DEFAULTS, Evaluation, Settings

TASK = "token-classification"
# Statistics of a sentence: entities that are found and right, that are found, and that are there.
METRICS = (
    ratio("F1", lambda sums: 2 * sums[:, 0], lambda sums: sums[:, 1] + sums[:, 2]),
    ratio("precision", lambda sums: sums[:, 0], lambda sums: sums[:, 1]),
    ratio("recall", lambda sums: sums[:, 0], lambda sums: sums[:, 2]),
)
OUTSIDE = "O"
_WORDS, _TAGS = ("words", "tokens"), ("tags", "ner_tags", "labels")
_DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True)
class Sentence:
    """Words, and the tag of each: O, or B-, I-, E- or S- and the kind of the entity."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_sentences(data: str | Path, samples: int | None = None) -> list[Sentence]:
    """Return the first sentences of a .jsonl file of words and tags, else of one in CoNLL's format; raises BctError.

    CoNLL: a word a line, its tag in the last column, an empty line between sentences.
    """
    file = Path(data)
    if file.suffix == ".jsonl":
        records = read_records(file, samples)
        found = list(zip(*fields(file, records, _WORDS, _TAGS), strict=True))
    else:
        found = list(_conll(file))[:samples]
    for number, (words, tags) in enumerate(found, 1):
        if not words or len(words) != len(tags) or not all(isinstance(text, str) for text in (*words, *tags)):
            raise BctError(f"{file}: sentence {number} has not as many tags, in text, as words")
    if not found:
        raise BctError(f"{file}: no sentences")
    return [Sentence(tuple(words), tuple(tags)) for words, tags in found]


def _conll(file: Path) -> Iterator[tuple[list[str], list[str]]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BctError(f"{file}: no readable text in UTF-8") from error
    rows: list[list[str]] = []
    for number, line in enumerate([*lines, ""], 1):
        columns = line.split()
        if len(columns) == 1 and columns[0] != _DOCUMENT:
            raise BctError(f"{file}: line {number} has one column; wanted are a word and, in the last one, its tag")
        if columns and columns[0] != _DOCUMENT:
            rows.append(columns)
        elif rows:
            yield [row[0] for row in rows], [row[-1] for row in rows]
            rows = []


def tags_of_words(words: Sequence[str], tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each word the tag of its first token; O for words behind the last token, where the text was cut.

    `tokens` are a pipeline's answer to the words with a space between: tags (`entity`) from `start` to `end`.
    """
    tags, place = [], 0
    rest = iter(tokens)
    token = next(rest, None)
    for word in words:
        # A token of the space before a word may be one of its own.
        while token is not None and token["end"] <= place:
            token = next(rest, None)
        tags.append(token["entity"] if token is not None and token["start"] < place + len(word) else OUTSIDE)
        place += len(word) + 1
    return tags


def _tag(pipeline: Any, path: Path, sentences: Sequence[Sentence]) -> list[list[str]]:
    if not pipeline.tokenizer.is_fast:
        raise BctError(f"{path}: its tokenizer does not say where tokens are; a tokenizer.json is needed")
    known = set(pipeline.model.config.id2label.values())
    wanted = {tag for sentence in sentences for tag in sentence.tags}
    if not known & wanted - {OUTSIDE}:
        raise BctError(f"{path}: tags {_some(known)}, the data has {_some(wanted)}: none is the same")
    return [
        tags_of_words(sentence.words, pipeline(" ".join(sentence.words), ignore_labels=[])) for sentence in sentences
    ]


def _some(tags: set[str]) -> str:
    return ", ".join(sorted(tags)[:5])


def count(truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> Array:
    """Return [sentences, 3]: entities that are found and right, found, and there, by seqeval's reading of tags."""
    entities = extra("seqeval.metrics.sequence_labeling").get_entities
    pairs = [(set(entities(list(one))), set(entities(list(other)))) for one, other in zip(truth, found, strict=True)]
    return np.array([(len(one & other), len(other), len(one)) for one, other in pairs], float)


def evaluate_tokens(
    data: str | Path,
    models: Sequence[str | Path],
    *,
    samples: int | None = None,
    settings: Settings = DEFAULTS,
) -> Evaluation:
    """Return F1, precision and recall of entities, as seqeval counts them, of models that tag tokens.

    Models are folders; the first is the reference. `data` is a file of words and tags (`read_sentences`). A word has
    the tag of its first token. The decision on a word is its tag. Raises BctError for what cannot be read or run.
    """
    extra("seqeval.metrics.sequence_labeling")
    paths = check_folders(models)
    sentences = read_sentences(data, samples)
    truth = [sentence.tags for sentence in sentences]
    outcomes = []
    for path in paths:
        found = run_pipeline(TASK, path, settings.threads, partial(_tag, path=path, sentences=sentences))
        tags = np.array([tag for sentence in found for tag in sentence], object)
        outcomes.append(Outcome(path, bytes_on_disk(path), count(truth, found), tags))
    return compare("tokens", data, outcomes, METRICS, settings, notes=[f"{len(sentences):,} sentences"])
