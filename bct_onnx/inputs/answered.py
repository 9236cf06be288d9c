"""Inputs of a model, what it answers to them, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from onnx import ModelProto

from bct_onnx.arrays import Feed, Outputs, Run
from bct_onnx.errors import BctError
from bct_onnx.sessions import OrtError


class AnsweredInputs(NamedTuple):
    """Feeds, the model's outputs for each, and in words what kind of input each is, to say where an error was found."""

    feeds: list[Feed]
    outputs: list[Outputs]
    kinds: list[str]

    def add(self, feed: Feed, answer: Outputs, kind: str) -> None:
        """Add one feed."""
        for everything, one in zip(self, (feed, answer, kind), strict=True):
            everything.append(one)  # type: ignore[attr-defined]

    def or_refuse(self, path: Path, reason: str) -> AnsweredInputs:
        """Return this, or raise BctError where there is no feed."""
        if not self.feeds:
            raise BctError(f"{path}: no feed made for the model runs; give one with --feeds FILE.npz ({reason})")
        return self


# Gives inputs of a model from what runs it, its file, and the model, whose tensors need no data.
InputSource = Callable[[Run, Path, ModelProto], AnsweredInputs]


def answer_all(run: Run, feeds: Iterable[tuple[Feed, str]]) -> AnsweredInputs:
    """Run feeds, each of which comes with what it is in words; BctError where one does not run."""
    answered = AnsweredInputs([], [], [])
    for feed, kind in feeds:
        try:
            answered.add(feed, run(feed), kind)
        except OrtError as error:
            raise BctError(f"{kind}: the model does not run on it: {error}") from error
    return answered
