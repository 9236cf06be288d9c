"""Feeds that are made for a model, and what it answers to them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper

from bct_onnx.arrays import Array, Feed, Outputs, Run
from bct_onnx.errors import BctError
from bct_onnx.inputs.answered import AnsweredInputs
from bct_onnx.inputs.feeds import InputPlan, candidate_plans
from bct_onnx.inputs.scale import Values
from bct_onnx.inputs.text import Decoder, decoder_of
from bct_onnx.sessions import OrtError, TooLongError
from passes.formats.threads import in_order

# An output of fewer rows is asked again, at most so often, for so many rows at once: the error of a dozen answers says
# little of that of the next dozen.
FEWEST_ANSWERS, MOST_ADDED, ADDED_BATCH = 24, 3, 16
# Part of the time that text of a model's own may take: dozens of runs.
TEXT_SHARE = 0.5
# Rows and tokens of a feed of text to learn from, and how many there are: 4,096 tokens, drawn in 256 runs.
OWN_ROWS, OWN_TOKENS, OWN_FEEDS = 8, 64, 8
# Texts to learn from are others than those to compare on.
OWN_SEED = 1
# Seconds after which no run of theirs begins: the texts that are whole by then are all there are.
OWN_SECONDS = 240.0


class _LateError(Exception):
    """There is no time for another text of the model's own."""


def made_inputs(run: Run, path: Path, model: ModelProto, seed: int = 0, budget_seconds: float = 60.0) -> AnsweredInputs:
    """Return the feeds of the first group in which any runs and gives a finite number; BctError where none does.

    A language model reads text of its own, behind caches that it filled itself; what cannot be made so stays as drawn.
    Once a feed has run, no other is begun after `budget_seconds`. The same seed gives the same feeds.
    """
    try:
        return _made(run, path, model, seed, budget_seconds)
    except MemoryError as error:
        raise BctError(
            f"{path}: inputs of the sizes it declares do not fit into memory; give smaller ones with --feeds"
        ) from error


def _made(run: Run, path: Path, model: ModelProto, seed: int, budget_seconds: float) -> AnsweredInputs:
    start, first_error = time.monotonic(), ""
    made = AnsweredInputs([], [], [])

    def run_in_time(feed: Feed) -> Outputs:
        # The first text takes the time that it takes: tokens and caches of noise would be a false alarm.
        if made.feeds and time.monotonic() - start > TEXT_SHARE * budget_seconds:
            raise _LateError
        return run(feed)

    for group in candidate_plans(model, seed, _values_of(model, path.parent), path.parent):
        made, plans = AnsweredInputs([], [], []), list[InputPlan]()
        for plan in group:
            feed = plan.feed()
            if time.monotonic() - start > budget_seconds and (made.feeds or first_error):
                return made.or_refuse(path, first_error)
            try:
                answer = run(feed)
            except TooLongError as error:
                raise BctError(f"{path}: {error}; give shorter inputs with --feeds FILE.npz") from error
            except OrtError as error:
                first_error = first_error or str(error)
                continue
            if _says_something(answer) and (found := _plausible(run_in_time, plan, feed, answer)):
                made.add(*found)
                plans.append(plan)
            first_error = first_error or "every output is empty, NaN or infinite"
        if made.feeds:
            _add_answers(run, plans[0], made, start + budget_seconds)
            return made
    return AnsweredInputs([], [], []).or_refuse(path, first_error)


def _add_answers(run: Run, plan: InputPlan, made: AnsweredInputs, until: float) -> None:
    """Add feeds like a plan's, of more rows, while some output of the model has few answers to tell its error by."""
    for number in range(1, MOST_ADDED + 1):
        if _fewest_answers(made.outputs) >= FEWEST_ANSWERS or time.monotonic() > until:
            return
        feed = replace(plan, seed=(*plan.seed, number)).feed(batch=ADDED_BATCH)
        try:
            answer = run(feed)
        except OrtError:
            return
        if _says_something(answer):
            made.add(feed, answer, describe(feed, plan))


def _fewest_answers(outputs: Sequence[Outputs]) -> int:
    """Return the rows of the output that has the fewest: one a text, say, where others have one a token."""
    floats = [name for name, array in outputs[0].items() if array.dtype.kind == "f" and array.ndim]
    rows = [sum(math.prod(each[name].shape[:-1]) for each in outputs) for name in floats]
    return min(rows, default=FEWEST_ANSWERS)


def more_feeds(
    run: Run,
    path: Path,
    model: ModelProto,
    made: tuple[Sequence[Feed], Sequence[Outputs]],
    count: int,
    workers: int = 1,
) -> tuple[list[Feed], list[Outputs]]:
    """Return the feeds that were made for a model and its answers, and as many like them as are wanted.

    So many threads run the model at once.
    """
    feeds, outputs, seed = list(made[0]), list(made[1]), 0

    def more(seed: int) -> AnsweredInputs:
        return made_inputs(run, path, model, seed, float("inf"))

    while len(feeds) < count:
        draws = -(-(count - len(feeds)) // max(1, len(made[0])))
        for drawn in in_order(more, range(seed + 1, seed + draws + 1), workers):
            feeds += drawn.feeds
            outputs += drawn.outputs
        seed += draws
    return feeds[:count], outputs[:count]


def own_texts(run: Run, path: Path, model: ModelProto) -> list[Feed]:
    """Return feeds of text that a language model writes itself, from the first token; none for models of other kinds.

    The same ones every time, but for a model so slow that OWN_SECONDS leave some out.
    """
    until = time.monotonic() + OWN_SECONDS
    texts: list[Feed] = []

    def run_in_time(feed: Feed) -> Outputs:
        if time.monotonic() > until:
            raise _LateError
        return run(feed)

    for group in candidate_plans(model, OWN_SEED, _values_of(model, path.parent), path.parent):
        for plan in group:
            if plan.sizes()["past"]:
                continue
            try:
                first = plan.feed()
                decoder = decoder_of(run_in_time, plan, first, run_in_time(first))
                if decoder is not None:
                    for number in range(OWN_FEEDS):
                        own = replace(decoder, plan=replace(plan, seed=(*plan.seed, number)))
                        texts += [_own_text(own)]
                return texts
            except (TooLongError, _LateError):
                return texts
            except (OrtError, MemoryError):
                continue
    return texts


def _own_text(decoder: Decoder) -> Feed:
    larger = decoder.plan.feed(batch=OWN_ROWS, sequence=OWN_TOKENS)
    return decoder.plausible(larger, np.random.default_rng((*decoder.plan.seed, 1)))[0]


def _values_of(model: ModelProto, folder: Path) -> Values:
    """Return what reads an initializer of the main graph; its data may lie in files of the folder."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def values(name: str) -> Array | None:
        return numpy_helper.to_array(tensors[name], base_dir=str(folder)) if name in tensors else None

    return values


def _plausible(run: Run, plan: InputPlan, feed: Feed, answer: Outputs) -> tuple[Feed, Outputs, str] | None:
    """Return the feed of a language model with text and caches of its own, and its answer; others as they are.

    None where there is no time for its text.
    """
    try:
        decoder = decoder_of(run, plan, feed, answer)
        if decoder is None:
            return feed, answer, describe(feed, plan)
        better, kind = decoder.plausible(feed, np.random.default_rng((*plan.seed, 1)))
        return better, run(better), kind
    except _LateError:
        return None
    except OrtError:
        return feed, answer, f"tokens and caches drawn at random, {describe(feed, plan)}"


def describe(feed: Feed, plan: InputPlan) -> str:
    """Return in words whether a feed is of sentences, and the shapes of its inputs, one after the other."""
    first = {name: value[0] if isinstance(value, list) else value for name, value in feed.items()}
    sentences = (
        ["English sentences"] if any(entry.draw and entry.role not in plan.plain for entry in plan.inputs) else []
    )
    return ", ".join([*sentences, *(f"{name} {list(np.shape(array))}" for name, array in first.items())])


def _says_something(outputs: Mapping[str, Array]) -> bool:
    return any(
        array.size > 0 and (array.dtype.kind != "f" or bool(np.isfinite(array).any())) for array in outputs.values()
    )
