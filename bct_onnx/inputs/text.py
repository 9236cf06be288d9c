"""Token numbers on which a language model has something to say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bct_onnx.arrays import Feed, Run
from bct_onnx.measure.answers import LOGITS, TOKENS_RANK

# Rounds in which every token of a made text is drawn anew from what the model expects there.
ROUNDS = 6
TEXT_RANK = 2


def with_own_text(feeds: Sequence[Feed], run: Run, seed: int = 0) -> list[Feed]:
    """Return the feeds with token numbers that a language model itself expects one after the other.

    All places are drawn at once from the logits of the place before, a few rounds of it. Feeds of models that do not
    give logits [batch, tokens, vocabulary] for token numbers [batch, tokens] come back as they are.
    """
    rng = np.random.default_rng(seed)
    return [_own_text(feed, run, rng) for feed in feeds]


def _own_text(feed: Feed, run: Run, rng: np.random.Generator) -> Feed:
    for _ in range(ROUNDS):
        answer = run(feed)
        logits = next((array for name, array in answer.items() if LOGITS.search(name)), None)
        tokens = feed.get("input_ids")
        if logits is None or not isinstance(tokens, np.ndarray) or tokens.ndim != TEXT_RANK:
            return feed
        if logits.ndim != TOKENS_RANK or logits.shape[:TEXT_RANK] != tokens.shape or not np.isfinite(logits).all():
            return feed
        # The largest of logits with Gumbel noise is a draw from their softmax.
        drawn = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1).astype(tokens.dtype)
        feed = {**feed, "input_ids": np.concatenate([tokens[:, :1], drawn[:, :-1]], axis=1)}
    return feed
