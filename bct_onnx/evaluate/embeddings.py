"""Embeddings of sentences: whether those of similar meaning lie close, and how far a model's lie from another's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from bct_onnx.errors import BctError

from .compare import Outcome, compare
from .folders import bytes_on_disk, check_models
from .glue import Task, read_sentences
from .metrics import DISTANCE, SPEARMAN
from .records import DEFAULTS, Evaluation
from .sentences import Embedder, EmbeddingOptions

_SIMILARITY = Task((SPEARMAN,), regression=True)


def evaluate_embeddings(
    data: str | Path, models: Sequence[str | Path], *, samples: int | None = None, **options: Unpack[EmbeddingOptions]
) -> Evaluation:
    """Return how the cosine of two sentences' embeddings ranks with their similarity, for models on STS-B, say.

    Models are files or folders. Embeddings are of length one, and pooled as modules.json beside the model says, by the
    mean where there is none; tokenizer and longest text, `limit` in tokens, are found there too. `distance` is the root
    of the mean square of their distances to those of the first model. The decision on a pair is which second sentence
    of all lies closest to the first one. `data` is a .jsonl or .tsv file of sentence1, sentence2, label. Raises
    BctError for what cannot be read or run.
    """
    paths = check_models(models)
    texts, labels = read_sentences(data, _SIMILARITY, samples)
    if isinstance(texts[0], str):
        raise BctError(f"{data}: holds single sentences; wanted are sentence1, sentence2 and how alike they are")
    outcomes, exact = [], None
    for path in paths:
        units = Embedder(path, paths[0], **options).vectors([text[side] for side in (0, 1) for text in texts])
        exact = units if exact is None else exact
        if units.shape != exact.shape:
            raise BctError(f"{path}: embeds in {units.shape[1]} numbers, the first model in {exact.shape[1]}")
        first, second = np.split(units, 2)
        answers = {
            SPEARMAN.name: (first * second).sum(axis=1),
            # Of a pair, the mean of both: pairs are what is drawn anew.
            DISTANCE.name: np.square(units - exact).sum(axis=1).reshape(2, -1).mean(axis=0),
        }
        outcomes.append(Outcome(path, bytes_on_disk(path), answers, (first @ second.T).argmax(axis=1)))
    return compare("embeddings", data, outcomes, [SPEARMAN, DISTANCE], options.get("settings", DEFAULTS), labels=labels)
