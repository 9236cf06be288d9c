"""Embeddings of sentences: whether those of similar meaning lie close, and how far a model's lie from another's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bct_onnx.errors import BctError

from .compare import Outcome, compare
from .glue import Task, answers_of, encode, padding_of, read_sentences
from .metrics import DISTANCE, SPEARMAN, Array
from .records import DEFAULTS, Evaluation, Settings
from .session import Model, bytes_on_disk, check_models
from .tokens import read_tokenizer

_SIMILARITY = Task((SPEARMAN,), regression=True)
_TOKENS_RANK = 3


def mean_of_tokens(output: Array, mask: Array) -> Array:
    """Return unit vectors [batch, width]: the mean over tokens that are not padding, unless the model pools itself."""
    if output.ndim == _TOKENS_RANK:
        output = (output * mask[..., None]).sum(axis=1) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.asarray(output / np.linalg.norm(output, axis=-1, keepdims=True))


def evaluate_embeddings(
    data: str | Path,
    models: Sequence[str | Path],
    *,
    tokenizer: str | Path,
    limit: int = 128,
    samples: int | None = None,
    settings: Settings = DEFAULTS,
) -> Evaluation:
    """Return how the cosine of two sentences' embeddings ranks with their similarity, for models on STS-B, say.

    Embeddings are means over tokens, of length one. `distance` is the root of the mean square of their distances to
    those of the first model. The decision on a pair is which second sentence of all lies closest to the first one.
    `data` is a .jsonl or .tsv file of sentence1, sentence2, label. Raises BctError for what cannot be read or run.
    """
    paths = check_models(models)
    texts, labels = read_sentences(data, _SIMILARITY, samples)
    if isinstance(texts[0], str):
        raise BctError(f"{data}: holds single sentences; wanted are sentence1, sentence2 and how alike they are")
    reader = read_tokenizer(tokenizer)
    encodings = encode(reader, [text[side] for side in (0, 1) for text in texts], limit)
    outcomes, squares, exact = [], [], None
    for path in paths:
        model = Model(path, settings.threads)
        units = answers_of(model, encodings, padding_of(reader), settings, mean_of_tokens)
        exact = units if exact is None else exact
        if units.shape != exact.shape:
            raise BctError(f"{path}: embeds in {units.shape[1]} numbers, the first model in {exact.shape[1]}")
        first, second = np.split(units, 2)
        closest = (first @ second.T).argmax(axis=1)
        outcomes.append(Outcome(path, bytes_on_disk(path), (first * second).sum(axis=1), closest))
        # Of a pair, the mean of both: pairs are what is drawn anew.
        squares.append(np.square(units - exact).sum(axis=1).reshape(2, -1).mean(axis=0))
    found = compare("embeddings", Path(data), metrics=[SPEARMAN], labels=labels, outcomes=outcomes, settings=settings)
    apart = [replace(outcome, answers=square) for outcome, square in zip(outcomes, squares, strict=True)]
    more = compare("embeddings", Path(data), metrics=[DISTANCE], labels=labels, outcomes=apart, settings=settings)
    pairs = zip(found.models, more.models, strict=True)
    return replace(found, models=tuple(replace(a, scores=(*a.scores, *b.scores)) for a, b in pairs))
