"""Feeds that are made for a model, and what it answers to them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import ModelProto

from bct_onnx.arrays import Array, Feed, Outputs, Run
from bct_onnx.errors import BctError
from bct_onnx.inputs.feeds import candidate_feeds
from bct_onnx.session import OrtError, TooLongError


class Answered(NamedTuple):
    """Feeds, the model's outputs for each, and in words what kind of input each is, to say where an error was found."""

    feeds: list[Feed]
    outputs: list[Outputs]
    kinds: list[str]


def made_feeds(run: Run, path: str | Path, model: ModelProto, seed: int, budget_seconds: float) -> Answered:
    """Return the feeds of the first group in which any runs, with their outputs; BctError where none does."""
    start = time.monotonic()
    first_error = ""
    for group in candidate_feeds(model, seed):
        feeds: list[Feed] = []
        outputs: list[Outputs] = []
        for feed in group:
            try:
                answer = run(feed)
            except TooLongError as error:
                raise BctError(f"{path}: {error}; give shorter inputs with --feeds FILE.npz") from error
            except OrtError as error:
                first_error = first_error or str(error)
            else:
                if _says_something(answer):
                    feeds.append(feed)
                    outputs.append(answer)
                first_error = first_error or "every output is empty, NaN or infinite"
            if time.monotonic() - start > budget_seconds:
                break
        if feeds:
            return Answered(feeds, outputs, [kind_of(feed) for feed in feeds])
        if time.monotonic() - start > budget_seconds:
            break
    raise BctError(f"{path}: no feed made for the model runs; give one with --feeds FILE.npz ({first_error})")


def kind_of(feed: Feed) -> str:
    """Return the shapes of a feed in words, one input after the other."""
    first = {name: value[0] if isinstance(value, list) else value for name, value in feed.items()}
    return ", ".join(f"{name} {list(np.shape(array))}" for name, array in first.items())


def _says_something(outputs: Mapping[str, Array]) -> bool:
    return any(
        array.size > 0 and (array.dtype.kind != "f" or bool(np.isfinite(array).any())) for array in outputs.values()
    )
