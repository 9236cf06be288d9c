"""How far answers are apart, in one number."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence

import numpy as np

from bct_onnx.arrays import Array, Outputs
from bct_onnx.measure.outputs import find_mismatch, pool
from bct_onnx.measure.outputs import measure as measure_output

# Outputs of which a softmax is taken; those of every token are [batch, tokens, vocabulary].
LOGITS = re.compile("logit", re.IGNORECASE)
TOKENS_RANK = 3


def error(expected: Sequence[Outputs], answered: Sequence[Outputs]) -> float:
    """Return the error of the float outputs over all feeds, root mean square; infinite for a difference in kind.

    Of an output it is the distance between the two when both are scaled to length one, rows of 16 and more values
    centred. Of the logits of tokens it is at least sqrt(KL / 2), with KL the divergence in nats of the distribution
    answered from the one expected: 0.1 is 0.02 nats, or 2 % of perplexity. What counts of a class's logits is their
    order.
    """
    squares = []
    for name in expected[0]:
        pairs = [(one[name], other[name]) for one, other in zip(expected, answered, strict=True)]
        if any(find_mismatch(one, other) for one, other in pairs):
            return math.inf
        cosine = pool([measure_output(one, other) for one, other in pairs]).cosine
        if cosine is None:
            continue
        square = max(0.0, 2 * (1 - cosine))
        if LOGITS.search(name) and pairs[0][0].ndim == TOKENS_RANK:
            square = max(square, statistics.fmean(_divergence(one, other) for one, other in pairs) / 2)
        squares.append(square)
    return math.sqrt(statistics.fmean(squares)) if squares else 0.0


def _divergence(expected: Array, answered: Array) -> float:
    """Return the mean Kullback-Leibler divergence of softmax(answered) from softmax(expected), by rows."""
    p, q = _log_softmax(expected), _log_softmax(answered)
    weighed = np.where(np.isneginf(p), 0.0, np.exp(p) * np.nan_to_num(p - q, posinf=0.0, neginf=0.0))
    return float(weighed.sum(axis=-1).mean()) if p.size else 0.0


def _log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
