"""Text of a language model's own, and the caches that it filled while it read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bct_onnx.arrays import Array, Feed, Outputs, Run
from bct_onnx.inputs.feeds import InputPlan
from bct_onnx.inputs.roles import ModelInput, Role
from bct_onnx.sessions import OrtError, TooLongError

# Outputs of which a softmax is taken; those of every token are [batch, tokens, vocabulary].
LOGITS = re.compile("logit", re.IGNORECASE)
TOKENS_RANK, TEXT_RANK = 3, 2
# Tokens that are drawn one after the other; longer texts are several of these side by side.
PIECE = 32
# Rounds in which every token is drawn anew from what the model expects there, where lengths are fixed.
ROUNDS = 6
# By so much of what another last token changes in the logits there those of any before it may change: activations in
# codes have a scale of all tokens together. In models that fill gaps it is more.
LEAST_ATTENTION = 0.05
# Part of the distribution that a token is drawn from, the likeliest first: the tail, drawn as often as it stands there,
# leads a small model astray (Holtzman et al., arXiv 1904.09751).
NUCLEUS = 0.95
# Names of what goes in, and of the same thing that comes out.
_CACHE_WORDS = re.compile(r"past_key_values|present_key_values|past|present|cache|updated|output|input|new|_out$|_in$")


@dataclass(frozen=True)
class Decoder:
    """A model that gives logits of every token.

    Attributes:
        run: runs it.
        plan: makes its feeds.
        tokens: name of the input of token numbers, [batch, tokens].
        logits: name of the output, [batch, tokens, vocabulary].
        caches: output that becomes each input of earlier keys and values.
    """

    run: Run
    plan: InputPlan
    tokens: str
    logits: str
    caches: Mapping[str, str]

    def plausible(self, feed: Feed, rng: np.random.Generator) -> tuple[Feed, str]:
        """Return a feed with text and caches of the model's own in place of those drawn, and what it is in words."""
        rows, count = np.shape(feed[self.tokens])
        if not self.caches:
            return self._without_cache(feed, rng), f"text of its own, {rows} x {count} tokens"
        past = self.plan.sizes()["past"] if _reads_cache(self.plan) else 0
        text = self._text(feed, rows, past + count, rng)
        tokens = np.asarray(text, np.asarray(feed[self.tokens]).dtype)
        kind = f"text of its own, {rows} x {count} tokens"
        if not past:
            return {**feed, self.tokens: tokens}, kind
        caches = self._after(feed, tokens[:, :past])
        return {**feed, **caches, self.tokens: tokens[:, past:]}, f"{kind}, a cache of its own of {past}"

    def _after(self, feed: Feed, tokens: Array) -> Feed:
        """Return the caches that the model leaves behind tokens [batch, past] which nothing precedes."""
        first = self._like(feed, self.plan.feed(sequence=tokens.shape[1], past=0))
        for entry in self._masks():
            first[entry.name] = np.asarray(feed[entry.name])[:, : np.shape(first[entry.name])[1]]
        return self._taken(self.run({**first, self.tokens: tokens}), {})

    def _text(self, feed: Feed, rows: int, length: int, rng: np.random.Generator) -> Array:
        """Return token numbers [rows, length], in pieces that are drawn one token after the other."""
        pieces = -(-length // PIECE)
        size = -(-length // pieces)
        start = self._like(feed, self.plan.feed(batch=rows * pieces, sequence=1, past=0))
        tokens = np.asarray(start[self.tokens])
        if tokens.shape != (rows * pieces, 1):
            raise OrtError("the model's batch is fixed")
        caches: Feed = {}
        step: Feed = {**start, **self._unmasked(start)}
        while tokens.shape[1] < size:
            answer = self.run(step)
            drawn = draw(answer[self.logits][:, -1], rng).astype(tokens.dtype)[:, None]
            tokens = np.concatenate([tokens, drawn], axis=1)
            caches = self._taken(answer, caches)
            # Without caches a step reads all tokens again.
            read = 1 if self.caches else tokens.shape[1]
            counts = {"batch": rows * pieces, "sequence": read, "past": tokens.shape[1] - read}
            following = self._like(feed, self.plan.feed(self.caches, **counts))
            step = {**following, **self._unmasked(following), **caches, self.tokens: tokens[:, -read:]}
        return tokens.reshape(rows, -1)[:, :length]

    def _taken(self, answer: Outputs, before: Feed) -> Feed:
        """Return the caches in an answer; what a step does not give again, as of an encoder's output, stays."""
        return {
            name: before[name] if name in before and not answer[output].size else answer[output]
            for name, output in self.caches.items()
        }

    def _like(self, feed: Feed, other: Feed) -> dict[str, Array]:
        """Return another feed with what both have in the same shape, an encoder's output, say, taken from the first."""
        own = {self.tokens, *self.caches, *(entry.name for entry in self._masks())}
        drawn = {e.name for e in self.plan.inputs if e.role in (Role.NUMBERS, Role.MASK, Role.WEIGHT)} - own
        return {
            name: np.asarray(feed[name] if name in drawn and np.shape(feed[name]) == np.shape(value) else value)
            for name, value in other.items()
        }

    def _masks(self) -> list[ModelInput]:
        """Return the masks of the tokens and what precedes them."""
        return [e for e in self.plan.inputs if e.role is Role.MASK and len(e.shape) == 2 and "encoder" not in e.name]

    def _unmasked(self, feed: Feed) -> Feed:
        return {entry.name: np.ones_like(np.asarray(feed[entry.name])) for entry in self._masks()}

    def _without_cache(self, feed: Feed, rng: np.random.Generator) -> Feed:
        """Return the feed with text that is drawn token by token where lengths are free, else in rounds."""
        rows, count = np.shape(feed[self.tokens])
        try:
            text = self._text(feed, rows, count, rng)
        except TooLongError:
            raise
        except OrtError:
            return self._drawn_in_rounds(feed, rng)
        return {**feed, self.tokens: np.asarray(text, np.asarray(feed[self.tokens]).dtype)}

    def _drawn_in_rounds(self, feed: Feed, rng: np.random.Generator) -> Feed:
        """Return the feed with all tokens drawn at once from the logits of the place before, a few rounds of it."""
        for _ in range(ROUNDS):
            tokens, logits = np.asarray(feed[self.tokens]), self.run(feed)[self.logits]
            drawn = draw(logits[:, :-1], rng).astype(tokens.dtype)
            feed = {**feed, self.tokens: np.concatenate([tokens[:, :1], drawn], axis=1)}
        return feed


def decoder_of(run: Run, plan: InputPlan, feed: Feed, answer: Outputs) -> Decoder | None:
    """Return the language model that answers so to a feed, or None for a model of another kind."""
    tokens = next((e.name for e in plan.inputs if e.role is Role.IDS and np.ndim(feed[e.name]) == TEXT_RANK), None)
    logits = next((name for name, array in answer.items() if LOGITS.search(name) and array.ndim == TOKENS_RANK), None)
    if tokens is None or logits is None:
        return None
    array = answer[logits]
    if array.shape[:TEXT_RANK] != np.shape(feed[tokens]) or not np.isfinite(array).all():
        return None
    entry = next(e for e in plan.inputs if e.name == tokens)
    if entry.table_rows is not None and array.shape[-1] < entry.table_rows:
        return None  # classes of tokens, not tokens
    caches = pair_caches([e.name for e in plan.inputs if e.role is Role.CACHE], list(answer))
    if not caches and not _looks_back(run, feed, tokens, logits, array):
        return None  # fills gaps: what it expects in a place is what stands there
    return Decoder(run, plan, tokens, logits, caches)


def _looks_back(run: Run, feed: Feed, tokens: str, logits: str, answer: Array) -> bool:
    """Tell whether the last token has nothing to do with the logits of those before it."""
    ids = np.array(feed[tokens])
    if ids.shape[1] == 1:
        return True
    # Another number that the table has.
    ids[:, -1] = np.where(ids[:, -1] == ids.max(), ids.min(), ids.max())
    change = np.abs(run({**feed, tokens: ids})[logits] - answer).mean(axis=(0, 2))
    return bool(change[:-1].max() <= LEAST_ATTENTION * change[-1])


def pair_caches(inputs: Sequence[str], outputs: Iterable[str]) -> dict[str, str]:
    """Return the output that holds what each cache input is fed with next; none where one of them has no output.

    By their names without the words for earlier and later, `past_key_values.0.key` and `present.0.key`, say.
    """
    by_rest = {_rest(name): name for name in outputs}
    pairs = {name: by_rest.get(_rest(name)) for name in inputs}
    known = {name: output for name, output in pairs.items() if output is not None}
    return known if len(known) == len(pairs) == len(set(known.values())) else {}


def _rest(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", _CACHE_WORDS.sub("", name.lower()))


def _reads_cache(plan: InputPlan) -> bool:
    """Tell whether the model reads the cache that it is given: a merged decoder has a flag for that."""
    return bool(plan.sizes().get("cached", 1))


def draw(logits: Array, rng: np.random.Generator) -> Array:
    """Return one number of each row's vocabulary, [...], drawn from the likeliest of logits [..., vocabulary]."""
    odds = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    odds /= odds.sum(axis=-1, keepdims=True)
    # What is rarer is outside: all of it together has no more than the tail's part. So a few are left to be sorted.
    count = max(int((odds > (1 - NUCLEUS) / odds.shape[-1]).sum(axis=-1).max()), 1)
    likeliest = np.argpartition(-odds, count - 1, axis=-1)[..., :count]
    odds = np.take_along_axis(odds, likeliest, -1)
    order = np.argsort(-odds, axis=-1)
    odds = np.take_along_axis(odds, order, -1)
    inside = np.cumsum(odds, axis=-1) - odds < NUCLEUS
    # The largest of logarithms with Gumbel noise is a draw from what they are the logarithms of.
    with np.errstate(divide="ignore"):
        noisy = np.where(inside, np.log(odds) + rng.gumbel(size=odds.shape), -np.inf)
    drawn = np.take_along_axis(order, noisy.argmax(axis=-1)[..., None], -1)
    return np.take_along_axis(likeliest, drawn, -1)[..., 0]
