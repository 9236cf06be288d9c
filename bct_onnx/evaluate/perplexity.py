"""Perplexity of causal language models over a text, in windows that slide."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bct_onnx.errors import BctError

from .compare import Outcome, compare
from .folders import bytes_on_disk, check_models
from .metrics import NATS, PERPLEXITY, Array
from .model import Model, batches
from .records import Evaluation, Settings
from .tokenizers import Encoder, read_encoder, tokenizer_of

# Neighbouring tokens depend on each other, so the bootstrap draws runs of this many, not single tokens.
_RUN = 64
# Logits have a row a token: a batch of 4 x 256 tokens and 50,000 words takes 205 MB.
DEFAULTS = Settings(batch=4)


@dataclass(frozen=True)
class Window:
    """Tokens [length + 1]: all but the last are fed, all but the first predicted, `seen` not scored."""

    tokens: Array
    seen: int


def windows(tokens: Array, length: int, stride: int) -> list[Window]:
    """Return windows that predict every token of a document but its first, and score each once.

    Windows are `length` tokens long and start `stride` apart; the last one is shorter.
    """
    result: list[Window] = []
    scored, start, targets = 0, 0, len(tokens) - 1
    while scored < targets:
        stop = min(start + length, targets)
        result.append(Window(tokens[start : stop + 1], scored - start))
        scored = stop
        start += stride
    return result


def _documents(text: Path, encoder: Encoder, begin: int | None, lines: bool, limit: int | None) -> list[Array]:
    try:
        content = text.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BctError(f"{text}: no readable UTF-8 text") from error
    parts = content.splitlines() if lines else [content]
    head = [] if begin is None else [begin]
    return [np.array(head + encoder.encode(part)[:limit], np.int64) for part in parts if part.strip()]


def losses(logits: Array, targets: Array) -> Array:
    """Return minus the log-likelihood, in nats, of targets [b, s] under logits [b, s, vocabulary]."""
    best = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - best).sum(axis=-1)) + best[..., 0]
    return np.asarray(total - np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0])


def _outcome(path: Path, plan: Sequence[Window], settings: Settings) -> Outcome:
    model = Model(path, settings.threads)
    lengths = np.array([len(window.tokens) - 1 for window in plan])
    scores: list[Array] = [np.empty(0)] * len(plan)
    choices: list[Array] = [np.empty(0)] * len(plan)
    for chosen in batches(lengths, settings.batch, equal=True):
        tokens = np.stack([plan[i].tokens for i in chosen])
        fed, targets = tokens[:, :-1], tokens[:, 1:]
        values = {
            "main": fed,
            "mask": np.ones_like(fed),
            "types": np.zeros_like(fed),
            "positions": np.broadcast_to(np.arange(fed.shape[1]), fed.shape),
        }
        logits = model.answer(values).astype(np.float32, copy=False)
        if logits.ndim != 3 or logits.shape[:2] != fed.shape or logits.shape[2] <= tokens.max():
            raise BctError(
                f"{path}: output {model.output} is {list(logits.shape)} for tokens {list(fed.shape)} up to "
                f"{tokens.max()}; wanted is [batch, tokens, vocabulary]"
            )
        loss, choice = losses(logits, targets), logits.argmax(axis=-1)
        for row, index in enumerate(chosen):
            scores[index] = loss[row, plan[index].seen :]
            choices[index] = choice[row, plan[index].seen :]
    flat = np.concatenate(scores).astype(float)
    sums = np.add.reduceat(flat, np.arange(0, len(flat), _RUN))
    return Outcome(path, bytes_on_disk(path), sums, np.concatenate(choices))


def evaluate_perplexity(
    text: str | Path,
    models: Sequence[str | Path],
    *,
    tokenizer: str | Path | None = None,
    window: int = 256,
    stride: int | None = None,
    begin: int | None = None,
    lines: bool = False,
    limit: int | None = None,
    settings: Settings = DEFAULTS,
) -> Evaluation:
    """Return nats per token and perplexity of causal models over a UTF-8 text; the first is the reference.

    Models are files or folders. The tokenizer is one for all: that beside the reference, if none is given.
    `window` is the context in tokens, `stride` (half of it by default) how far windows are apart. `begin` is
    the token put before each document: by default the tokenizer's own, none if negative. With `lines` each
    line is a document of its own, else the file is one; `limit` takes the first tokens of each. Raises
    BctError.
    """
    stride = stride or max(1, window // 2)
    if not 0 < stride <= window:
        raise BctError(f"stride {stride} leaves tokens out: choose 1 to the window, {window}")
    paths = check_models(models)
    encoder = read_encoder(tokenizer_of(paths[0], paths[0], tokenizer))
    first = encoder.begin if begin is None else begin
    documents = _documents(Path(text), encoder, None if first is None or first < 0 else first, lines, limit)
    plan = [part for document in documents for part in windows(document, window, stride)]
    if not plan:
        raise BctError(f"{text}: nothing to predict in it")
    outcomes = [_outcome(path, plan, settings) for path in paths]
    count = len(outcomes[0].decisions)
    counts = np.diff(np.append(np.arange(0, count, _RUN), count))
    return compare("perplexity", text, outcomes, (NATS, PERPLEXITY), settings, labels=counts)
