"""Retrieval: whether the passages that belong to a query lie closest to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.extras import extra

from .compare import Outcome, compare
from .folders import bytes_on_disk, check_models
from .metrics import Array, mean
from .read import fields, read_records, text_fields
from .records import DEFAULTS, Evaluation
from .sentences import Embedder, EmbeddingOptions

RECALL_AT = (1, 10)
_GAIN_AT = 10
FIGURES = (*(f"recall@{k}" for k in RECALL_AT), f"nDCG@{_GAIN_AT}")
_QUERY, _PASSAGE = ("query", "question", "sentence1", "text"), ("passage", "text", "sentence", "answer", "sentence2")
_ID, _TEXT = ("_id", "id"), ("text", "query", "passage")
_RELEVANT = (("query-id", "query_id", "query"), ("corpus-id", "corpus_id", "passage_id", "passage"))
# Names of the three files of a folder; the first ones are those of BEIR.
_QUERIES = ("queries.jsonl", "queries.tsv")
_PASSAGES = ("corpus.jsonl", "passages.jsonl", "corpus.tsv", "passages.tsv")
_PAIRS = ("qrels/test.tsv", "qrels/dev.tsv", "qrels.tsv", "qrels.jsonl", "relevant.jsonl", "relevant.tsv")
# Similarities of one slab of queries: 32 MB of float64, whatever the number of passages.
_SLAB = 1 << 22


@dataclass(frozen=True)
class Collection:
    """Queries, passages, and for each query the numbers of the passages that belong to it, with their grades."""

    queries: Sequence[str]
    passages: Sequence[str]
    relevant: Sequence[Mapping[int, float]]


def read_collection(data: str | Path, samples: int | None = None) -> Collection:
    """Return the first queries, and all passages, of a folder or of a file of pairs; raises BctError.

    A folder is laid out as BEIR's are: queries.jsonl and corpus.jsonl of _id and text (and title), qrels/test.tsv (or
    qrels.jsonl) of query-id, corpus-id, score. In a .jsonl or .tsv file of query and passage, each passage belongs to
    the queries that it stands beside.
    """
    data = Path(data)
    return _read_folder(data, samples) if data.is_dir() else _read_pairs(data, samples)


def _read_pairs(file: Path, samples: int | None) -> Collection:
    records = read_records(file)
    (queries,) = text_fields(file, records, _QUERY)
    query = next(name for name in _QUERY if name in records[0])
    (passages,) = text_fields(file, records, [name for name in _PASSAGE if name != query])
    numbers = {passage: number for number, passage in enumerate(dict.fromkeys(passages))}
    relevant: dict[str, dict[int, float]] = {}
    for text, passage in zip(queries, passages, strict=True):
        relevant.setdefault(text, {})[numbers[passage]] = 1.0
    return Collection(list(relevant)[:samples], list(numbers), list(relevant.values())[:samples])


def _read_folder(folder: Path, samples: int | None) -> Collection:
    queries, passages = (_read_texts(_file(folder, names)) for names in (_QUERIES, _PASSAGES))
    file = _file(folder, _PAIRS)
    records = read_records(file)
    numbers = {key: number for number, key in enumerate(passages)}
    relevant: dict[str, dict[int, float]] = {}
    grades = [record.get("score", 1) for record in records]
    for query, passage, grade in zip(*fields(file, records, *_RELEVANT), grades, strict=True):
        if str(query) not in queries or str(passage) not in numbers:
            raise BctError(f"{file}: names query {query} and passage {passage}, of which one is not in {folder}")
        if float(grade) > 0:
            relevant.setdefault(str(query), {})[numbers[str(passage)]] = float(grade)
    if not relevant:
        raise BctError(f"{file}: no passage belongs to any query")
    kept = list(relevant)[:samples]
    return Collection([queries[key] for key in kept], list(passages.values()), [relevant[key] for key in kept])


def _file(folder: Path, names: Sequence[str]) -> Path:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise BctError(f"{folder}: lacks one of {', '.join(names)}")
    return found


def _read_texts(file: Path) -> dict[str, str]:
    """Return texts by their id; a title stands before its text."""
    records = read_records(file)
    (ids,) = fields(file, records, _ID)
    (texts,) = text_fields(file, records, _TEXT)
    titles = [record.get("title") or "" for record in records]
    return {str(key): f"{title} {text}".strip() for key, title, text in zip(ids, titles, texts, strict=True)}


def figures(similarity: Array, relevant: Sequence[Mapping[int, float]]) -> tuple[dict[str, Array], Array]:
    """Return the figures by name, [queries] from 0 to 1, and the closest passage, of similarities [queries, passages].

    Recall at k is the share of what belongs to a query that is among the k closest; nDCG@10 is scikit-learn's.
    """
    gain = extra("sklearn.metrics").ndcg_score
    order = np.argsort(-similarity, axis=1, kind="stable")[:, : max(RECALL_AT)]
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for row, closest, grades in zip(similarity, order, relevant, strict=True):
        for place, k in enumerate(RECALL_AT):
            found[FIGURES[place]].append(np.isin(closest[:k], list(grades)).sum() / len(grades))
        truth = np.zeros_like(row)
        truth[list(grades)] = list(grades.values())
        # Of one passage there is no order.
        found[FIGURES[-1]].append(gain([truth], [row], k=_GAIN_AT) if len(row) > 1 else 1.0)
    return {name: np.array(values) for name, values in found.items()}, order[:, 0]


def _outcome(embedder: Embedder, path: Path, collection: Collection) -> Outcome:
    queries = embedder.vectors(collection.queries, "query")
    passages = embedder.vectors(collection.passages, "document")
    step = max(1, _SLAB // len(passages))
    parts = [
        figures(queries[start : start + step] @ passages.T, collection.relevant[start : start + step])
        for start in range(0, len(queries), step)
    ]
    answers = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
    return Outcome(path, bytes_on_disk(path), answers, np.concatenate([closest for _, closest in parts]))


def evaluate_retrieval(
    data: str | Path, models: Sequence[str | Path], *, samples: int | None = None, **options: Unpack[EmbeddingOptions]
) -> Evaluation:
    """Return recall@1, recall@10 and nDCG@10 of passages by the cosine of their embeddings to those of queries.

    Models are files or folders, embedded as in `evaluate_embeddings`, with the prompts for queries and documents that
    the folder's sentence-transformers configuration has. `data` is a folder as BEIR's are, or a .jsonl or .tsv file of
    query and passage; `samples` takes the first queries, against all passages. The decision on a query is the closest
    passage. Raises BctError for what cannot be read or run.
    """
    paths = check_models(models)
    collection = read_collection(data, samples)
    outcomes = [_outcome(Embedder(path, paths[0], **options), path, collection) for path in paths]
    notes = [f"{len(collection.passages):,} passages"]
    return compare(
        "retrieval", data, outcomes, [mean(name) for name in FIGURES], options.get("settings", DEFAULTS), notes=notes
    )
