"""What an output of a model is, as far as it matters for how an error in it is told."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from bct_onnx.arrays import Array


class Kind(enum.Enum):
    """What the values of an output mean, in the words of reports."""

    TOKENS = "next token"
    CLASSES = "classes"
    VALUES = "values"
    CACHE = "cache"
    EXACT = "exact"


LOGITS = re.compile("logit|score|prob", re.IGNORECASE)
CACHE = re.compile("present|past|cache|key_values", re.IGNORECASE)
# Output of every token's vocabulary is [batch, tokens, vocabulary]; fewer columns are classes of tokens.
TOKENS_RANK, SMALLEST_VOCABULARY = 3, 64
CACHE_RANK, VECTOR_RANK = 3, 2


def output_kind(name: str, arrays: Sequence[Array]) -> Kind:
    """Return the kind of an output, from its name and its arrays over several feeds."""
    first = arrays[0]
    if first.dtype.kind != "f":
        return Kind.EXACT
    if CACHE.search(name) and first.ndim >= CACHE_RANK:
        return Kind.CACHE
    if not LOGITS.search(name) or first.ndim < VECTOR_RANK:
        return Kind.VALUES
    is_text = first.ndim == TOKENS_RANK and "logit" in name.lower() and first.shape[-1] >= SMALLEST_VOCABULARY
    return Kind.TOKENS if is_text else Kind.CLASSES
